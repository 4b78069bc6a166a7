/** The API: requests with the user's key, answers as JSON, errors as problem documents. */
import { createStore } from "./store.js";

const KEY_NAME = "tinyfit-api-key";

/** How the server was at the last request. A new `keyVersion` makes whoever polls ask again. */
export const connection = createStore({
  isReachable: true,
  needsKey: false,
  wasKeyRefused: false,
  keyVersion: 0,
});

/** When the server last answered, by the browser's clock; nobody watches it. */
export let lastAnswerAt = null;

let clockOffsetMs = 0;

/** Now by the server's clock, in milliseconds: the browser's may be another. */
export const serverNow = () => Date.now() + clockOffsetMs;

/** The server refused a request; `detail` is a sentence for people. */
export class Problem extends Error {
  constructor(status, document, retryAfter = null) {
    super(document.detail || `the server answered ${status}`);
    this.status = status;
    this.document = document;
    this.errors = document.errors ?? [];
    this.smallestFeasibleBytes = document.smallest_feasible_bytes ?? null;
    this.smallestFeasibleMacs = document.smallest_feasible_macs ?? null;
    this.smallestFeasibleModelBytes = document.smallest_feasible_model_bytes ?? null;
    this.smallestFeasibleInferenceBytes = document.smallest_feasible_inference_bytes ?? null;
    this.retryAfterSeconds = Number(retryAfter) || null;
  }
}

/** No answer at all. */
export class Unreachable extends Error {
  constructor() {
    super("the server can't be reached");
  }
}

export const hasKey = () => sessionStorage.getItem(KEY_NAME) !== null;

/** Keep a key for as long as this tab is open; null forgets it. */
export function setKey(key) {
  if (key === null) sessionStorage.removeItem(KEY_NAME);
  else sessionStorage.setItem(KEY_NAME, key);
  const { keyVersion } = connection.get();
  connection.set({ needsKey: false, wasKeyRefused: false, keyVersion: keyVersion + 1 });
}

export function keyHeaders() {
  return hasKey() ? { Authorization: `Bearer ${sessionStorage.getItem(KEY_NAME)}` } : {};
}

/** Ask the API. `json` is sent as the body; `etag` says what is known already. */
export async function request(path, { method = "GET", json, etag, headers = {} } = {}) {
  const sent = { Accept: "application/json", ...keyHeaders(), ...headers };
  if (json !== undefined) sent["Content-Type"] = "application/json";
  if (etag) sent["If-None-Match"] = etag;
  const response = await answer(path, {
    method,
    headers: sent,
    body: json === undefined ? undefined : JSON.stringify(json),
  });
  if (response.status === 304) return { isUnchanged: true };
  const text = await bodyOf(response);
  if (!response.ok) {
    throw problemOf(response.status, text, sent, response.headers.get("Retry-After"));
  }
  return {
    isUnchanged: false,
    data: text ? JSON.parse(text) : null,
    etag: response.headers.get("ETag"),
    link: response.headers.get("Link"),
  };
}

/** What a GET answers with that is no JSON. */
export async function fetchBlob(path) {
  const sent = keyHeaders();
  const response = await answer(path, { headers: sent });
  if (!response.ok) throw problemOf(response.status, await bodyOf(response), sent);
  return response.blob();
}

/** Save a file that may need the key, under the name that the server gives it. */
export async function download(path) {
  const sent = keyHeaders();
  const response = await answer(path, { headers: sent });
  if (!response.ok) throw problemOf(response.status, await bodyOf(response), sent);
  const named = /filename="?([^";]+)/.exec(response.headers.get("Content-Disposition") ?? "");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = named?.[1] ?? "model.tinyfit.zip";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** A refusal as an error; 401 makes the page ask for a key, unless it has another one by now than
    was sent. */
export function problemOf(status, text, sent, retryAfter = null) {
  let document = {};
  try {
    document = JSON.parse(text);
  } catch {
    document = { detail: `the server answered ${status}` };
  }
  if (status === 401 && sent.Authorization === keyHeaders().Authorization) {
    connection.set({ needsKey: true, wasKeyRefused: hasKey() });
  }
  return new Problem(status, document, retryAfter);
}

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    connection.set({ isReachable: false });
    throw new Unreachable();
  }
  const date = Date.parse(response.headers.get("Date") ?? "");
  const offsetMs = date - Date.now();
  // The header has whole seconds: smaller differences say nothing.
  clockOffsetMs = Math.abs(offsetMs) > 1500 ? offsetMs : 0;
  lastAnswerAt = new Date();
  connection.set({ isReachable: true });
  return response;
}

async function bodyOf(response) {
  try {
    return await response.text();
  } catch {
    connection.set({ isReachable: false });
    throw new Unreachable();
  }
}
