/** What happened to a job, as sentences, the newest in sight. */
import { html, useLayoutEffect, useRef, useState } from "./dom.js";
import { formatClock, formatMoment } from "./format.js";
import { eventSentence } from "./words.js";

const SHOWN = 200;
const NEAR_PIXELS = 40;

export function Log({ events }) {
  const [isWhole, setIsWhole] = useState(false);
  const box = useRef(null);
  const isAtEnd = useRef(true);
  useLayoutEffect(() => {
    if (isAtEnd.current) box.current.scrollTop = box.current.scrollHeight;
  }, [events.length]);
  const onScroll = ({ target }) => {
    isAtEnd.current = target.scrollHeight - target.scrollTop - target.clientHeight < NEAR_PIXELS;
  };
  const shown = isWhole ? events : events.slice(-SHOWN);
  return html`
    <section class="card" aria-labelledby="log-title">
      <h2 id="log-title">Log</h2>
      ${
        shown.length < events.length &&
        html`<p>
        <button type="button" class="quiet" onClick=${() => setIsWhole(true)}>
          Show all ${events.length} entries
        </button>
      </p>`
      }
      <div
        class="log"
        ref=${box}
        onScroll=${onScroll}
        tabindex="0"
        role="log"
        aria-labelledby="log-title"
      >
        <ol>
          ${shown.map((event) => html`<${Entry} key=${event.number} event=${event} />`)}
        </ol>
      </div>
    </section>
  `;
}

function Entry({ event }) {
  const date = new Date(event.created_at);
  return html`
    <li class=${`of-${event.kind}`}>
      <time datetime=${event.created_at} title=${formatMoment(date)}>${formatClock(date)}</time>
      <span>${eventSentence(event)}</span>
    </li>
  `;
}
