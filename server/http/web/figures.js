// How figures read.

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
const SIZES = ["bytes", "kB", "MB", "GB", "TB", "PB"];

export const NONE = "–";
const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);
const of = (write) => (value) => (known(value) ? write(value) : NONE);

// With so many digits as a glance needs.
const brief = (value) => (value >= 100 || value === 0 ? whole.format(value) : value.toFixed(value >= 10 ? 1 : 2));

export const count = of((value) => whole.format(value));
export const number = of(brief);
export const perSecond = of((value) => `${brief(value)}/s`);
export const percent = of((share) => `${(100 * share).toFixed(share > 0 && share < 1 ? 1 : 0)} %`);
export const seconds = of((value) => (value < 1 ? `${brief(1000 * value)} ms` : `${brief(value)} s`));
export const timeOfDay = of((date) => clock.format(date));
export const date = of((text) => day.format(new Date(text)));

export const bytes = of((value) => {
  const step = Math.min(SIZES.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, value)) / 3)));
  return `${step ? brief(value / 1000 ** step) : whole.format(value)} ${SIZES[step]}`;
});

// How long something lasts, in its two largest units.
export const duration = of((value) => {
  const minutes = Math.round(value / 60);
  if (value < 90) return `${Math.round(value)} s`;
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
});

export const counted = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;
