// A table that is filled again and again, and stays as it is where nothing has changed.

export class Table {
  #body;
  #empty;
  #shown;

  // `table`: has its head; `empty`: the element that says why there are no rows.
  constructor(table, empty) {
    this.#body = table.tBodies[0];
    this.#empty = empty;
  }

  // `rows`: lists of cells. The first of each names the row. A cell is a text, or {text, share} with a bar of that
  // length, or {text, mark} with a mark of that kind.
  fill(rows, why = "") {
    const shown = JSON.stringify([rows, why]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#body.parentElement.hidden = rows.length === 0;
    this.#empty.hidden = rows.length > 0;
    this.#empty.textContent = why;
    this.#body.replaceChildren(...rows.map(line));
  }
}

function line(cells) {
  const made = document.createElement("tr");
  made.append(...cells.map((cell, number) => cellOf(cell, number === 0)));
  return made;
}

function cellOf(cell, first) {
  const made = document.createElement(first ? "th" : "td");
  if (first) made.scope = "row";
  const { text, share, mark } = typeof cell === "string" ? { text: cell } : cell;
  if (mark) {
    const word = document.createElement("span");
    word.className = `mark ${mark}`;
    word.textContent = text;
    made.append(word);
  } else {
    made.textContent = text;
  }
  if (share !== undefined) {
    made.classList.add("measured");
    made.style.setProperty("--share", share);
  }
  return made;
}
