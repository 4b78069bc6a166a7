/** A new job as the form holds it, as the API takes it, and as the API finds fault with it. */
import { formatNumber } from "./format.js";
import { capitalized } from "./words.js";

const WHOLE = /^\d+$/;
const NUMBER = /^\d*\.?\d+$/;

/** The form's values: those of the API's own document (openapi.json), or of a job to copy. */
export function initialValues(schemas, job) {
  const settings = properties(schemas.JobSettings);
  const request = properties(schemas.JobRequest);
  const from = job?.settings ?? {};
  const text = (name) => String(from[name] ?? settings[name].default ?? "");
  return {
    dataset: job?.dataset ?? "",
    name: job ? job.name : "",
    memory_limit: job ? sizeText(job.memory_limit_bytes) : "",
    method: job?.method ?? request.method.default,
    supernet: job?.supernet ?? request.supernet.default,
    horizontal_flip: from.horizontal_flip ?? settings.horizontal_flip.default,
    resolutions: (from.resolutions ?? settings.resolutions.default).join(", "),
    ...Object.fromEntries(NUMBERS.map((name) => [name, text(name)])),
  };
}

/** The settings that are one number each. */
export const NUMBERS = [
  "trials",
  "epochs",
  "adapt_steps",
  "batch_size",
  "learning_rate",
  "label_smoothing",
  "min_crop_scale",
  "seed",
];

/** The body of POST /jobs. What is no number goes as it is: the server says what is wrong. */
export function requestOf(values) {
  const settings = {
    horizontal_flip: values.horizontal_flip,
    resolutions: values.resolutions
      .split(/[\s,;]+/)
      .filter(Boolean)
      .map(numberOrText),
  };
  for (const name of NUMBERS) {
    const text = values[name].trim();
    if (text) settings[name] = numberOrText(text);
  }
  return {
    dataset: values.dataset,
    memory_limit: values.memory_limit.trim(),
    name: values.name.trim(),
    method: values.method,
    supernet: values.supernet,
    settings,
  };
}

const numberOrText = (text) => (WHOLE.test(text) || NUMBER.test(text) ? Number(text) : text);

/** { field: sentence } of a refusal; what is about no field of the form is under `""`. */
export function errorsByField(problem) {
  if (problem.smallestFeasibleBytes) return { memory_limit: sentence(problem.message) };
  const found = {};
  for (const { where, what } of problem.errors ?? []) {
    const field = where.split(".").find((part) => part !== "body" && part !== "settings") ?? "";
    const name = field in FIELD_NAMES ? field : "";
    found[name] ??= name ? sentence(what) : `${where}: ${what}`;
  }
  return Object.keys(found).length > 0 ? found : { "": sentence(problem.message) };
}

/** "6MB", or bytes where that is not exact. */
const sizeText = (bytes) => (bytes % 1e4 === 0 ? `${bytes / 1e6}MB` : String(bytes));

/** A limit that is just feasible, in the form's own words: hundredths of MB, rounded up. */
export const feasibleLimit = (bytes) => `${(Math.ceil(bytes / 1e4) / 100).toFixed(2)}MB`;

/** "1 to 10 000" of a setting, from its schema. */
export function rangeOf(schema) {
  const bounds = schema.anyOf?.find(({ type }) => type !== "null") ?? schema;
  const { minimum, exclusiveMinimum, maximum, exclusiveMaximum, type } = bounds;
  const isWhole = type === "integer";
  const high = maximum ?? (isWhole ? exclusiveMaximum - 1 : undefined);
  if (minimum !== undefined && high !== undefined) {
    return `${formatNumber(minimum)} to ${formatNumber(high)}`;
  }
  const low = minimum === undefined ? `above ${exclusiveMinimum}` : `from ${minimum}`;
  return `${low}, ${high === undefined ? `below ${exclusiveMaximum}` : `at most ${high}`}`;
}

export const FIELD_NAMES = {
  dataset: "Images",
  memory_limit: "Memory limit",
  name: "Name",
  method: "Method",
  supernet: "Supernet",
  horizontal_flip: "Mirrored images",
  resolutions: "Image sides",
  trials: "Trials",
  epochs: "Epochs",
  adapt_steps: "Adaptation steps",
  batch_size: "Batch size",
  learning_rate: "Learning rate",
  label_smoothing: "Label smoothing",
  min_crop_scale: "Smallest crop",
  seed: "Seed",
};

export const properties = (schema) => schema.properties;

function sentence(text) {
  const whole = capitalized(text);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
