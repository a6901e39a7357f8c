// Elements, made in one line.

// `inside`: texts and elements; `given`: properties, and with `dataset` and `aria` what begins with data- and aria-.
export function element(tag, className = "", inside = [], { dataset = {}, aria = {}, ...given } = {}) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...[inside].flat().filter((one) => one !== ""));
  Object.assign(made, given);
  Object.assign(made.dataset, dataset);
  for (const [name, value] of Object.entries(aria)) made.setAttribute(`aria-${name}`, value);
  return made;
}

export const byId = (id) => document.getElementById(id);
export const unseen = (text) => element("span", "unseen", text);
