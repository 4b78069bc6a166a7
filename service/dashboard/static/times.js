/** Times that stay true while the page is open. */
import { serverNow } from "./api.js";
import { html, useEffect, useState } from "./dom.js";
import { formatAgo, formatMoment, formatSeconds, formatTimeLeft } from "./format.js";

/** "4 min ago", with the exact time for whoever asks. */
export function TimeAgo({ at }) {
  const now = useNow(15);
  const date = new Date(at);
  return html`<time datetime=${at} title=${formatMoment(date)}>${formatAgo(date, now)}</time>`;
}

/** How long something has run, or ran. */
export function Elapsed({ from, until }) {
  const now = useNow(until ? 3600 : 1);
  const end = until ? new Date(until).getTime() : now;
  return html`<span>${formatSeconds((end - new Date(from).getTime()) / 1000)}</span>`;
}

/** "about 2 min left". */
export function TimeLeft({ finishAt }) {
  const now = useNow(1);
  return html`<span>${formatTimeLeft((new Date(finishAt).getTime() - now) / 1000)}</span>`;
}

function useNow(seconds) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || tick((count) => count + 1), seconds * 1000);
    return () => clearInterval(timer);
  }, [seconds]);
  return serverNow();
}
