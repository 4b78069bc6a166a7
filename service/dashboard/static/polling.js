/** Asking again and again: seldom when nobody looks, patiently when the server is away. */
import { connection, request } from "./api.js";
import { useEffect, useRef, useState } from "./dom.js";
import { useStore } from "./store.js";

const HIDDEN_FACTOR = 10;
const SLOWEST_RETRY_SECONDS = 10;
const PAGE = 500;

/** The last answer of each path, shown at once when the user comes back to it. */
const known = new Map();
const grown = new Map();

/**
 * What a path answers, kept up to date. Old data stays where a request fails.
 * path: null asks for nothing. Returns data, link (the header), error, and refresh().
 */
export function usePolled(path, { seconds = 2 } = {}) {
  const [answer, setAnswer] = useState({ path: null });
  const { keyVersion } = useStore(connection);
  const wake = useRef(() => {});
  useEffect(() => {
    if (path === null) return undefined;
    const polling = keepAsking(async (isCurrent) => {
      try {
        const found = await request(path, { etag: known.get(path)?.etag });
        if (!found.isUnchanged) known.set(path, found);
        if (isCurrent()) setAnswer((before) => settled(before, path, known.get(path), null));
      } catch (error) {
        if (isCurrent()) setAnswer((before) => settled(before, path, known.get(path), error));
        throw error;
      }
    }, seconds);
    wake.current = polling.wake;
    return polling.stop;
  }, [path, seconds, keyVersion]);
  const { data, link } = known.get(path) ?? {};
  const error = answer.path === path ? answer.error : null;
  return { data, link, error, refresh: () => wake.current() };
}

/**
 * A numbered list that only grows: each request asks for what comes after the last known entry.
 * first: the number before the first entry. Null as long as nothing has been answered.
 */
export function useGrowing(path, { first, isLive, seconds = 1.5 }) {
  const [entries, setEntries] = useState({ path, list: grown.get(path) ?? null });
  const { keyVersion } = useStore(connection);
  useEffect(() => {
    if (path === null) return undefined;
    const polling = keepAsking(async (isCurrent) => {
      let page;
      do {
        const list = grown.get(path) ?? [];
        const after = list.at(-1)?.number ?? first;
        ({ data: page } = await request(`${path}?after=${after}&limit=${PAGE}`));
        if (page.length > 0 || !grown.has(path)) grown.set(path, [...list, ...page]);
        if (isCurrent()) setEntries((before) => listed(before, path, grown.get(path)));
      } while (page.length === PAGE && isCurrent());
      if (!isLive) polling.stop();
    }, seconds);
    return polling.stop;
  }, [path, first, isLive, seconds, keyVersion]);
  return entries.path === path ? entries.list : (grown.get(path) ?? null);
}

/** What a path would answer, known from another answer: its view need not wait. */
export function remember(path, data) {
  known.set(path, { data });
}

/** Forget what a deleted thing answered. */
export function forget(path) {
  for (const answers of [known, grown]) {
    for (const asked of answers.keys()) if (asked.startsWith(path)) answers.delete(asked);
  }
}

/** Run task at once, then every so often until stopped; wake() runs it without delay. */
function keepAsking(task, seconds) {
  let timer = null;
  let isRunning = false;
  let isWoken = false;
  let isStopped = false;
  let failures = 0;

  async function run() {
    clearTimeout(timer);
    if (isRunning) {
      isWoken = true;
      return;
    }
    isRunning = true;
    isWoken = false;
    let delaySeconds = document.hidden ? seconds * HIDDEN_FACTOR : seconds;
    try {
      await task(() => !isStopped);
      failures = 0;
    } catch (error) {
      failures += 1;
      const patience =
        error.retryAfterSeconds ?? Math.min(seconds * failures, SLOWEST_RETRY_SECONDS);
      delaySeconds = Math.max(delaySeconds, patience);
    }
    isRunning = false;
    if (isStopped) return;
    if (isWoken) run();
    else timer = setTimeout(run, delaySeconds * 1000);
  }

  const onVisible = () => {
    if (!document.hidden) run();
  };
  document.addEventListener("visibilitychange", onVisible);
  // Once this effect's caller has the handle: task may stop it.
  queueMicrotask(() => isStopped || run());
  return {
    wake: run,
    stop() {
      isStopped = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", onVisible);
    },
  };
}

/** The same object where nothing has changed, so that nothing is drawn again. */
function settled(before, path, found, error) {
  const isSame =
    before.path === path && before.found === found && before.error?.message === error?.message;
  return isSame ? before : { path, found, error };
}

function listed(before, path, list) {
  return before.path === path && before.list === list ? before : { path, list };
}
