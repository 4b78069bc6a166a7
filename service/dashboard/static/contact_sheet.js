/** Some images of each class as the squares that training sees. */
import { fetchBlob } from "./api.js";
import { html, useEffect, useRef, useState } from "./dom.js";
import { formatCount } from "./format.js";

export function ContactSheet({ dataset, fit }) {
  const { contact_sheet: sheet, fit: own } = dataset.report;
  const shown = fit === "auto" ? own : fit;
  const [picture, setPicture] = useState(null);
  useEffect(() => {
    let isWanted = true;
    fetchBlob(`/datasets/${encodeURIComponent(dataset.id)}/contact-sheet?fit=${shown}`)
      .then(createImageBitmap)
      .then((found) => isWanted && setPicture(found))
      .catch(() => isWanted && setPicture(null));
    return () => {
      isWanted = false;
    };
  }, [dataset.id, shown]);
  const rows = Object.entries(sheet.classes);
  const left = dataset.classes.length - rows.length;
  return html`
    <div class="sheet" role="group" aria-label="Images as training sees them">
      <h4>As training sees them</h4>
      ${rows.map(
        ([name, count], row) => html`
          <${Row} key=${name} name=${name} count=${count} row=${row} sheet=${sheet} picture=${picture} />
        `,
      )}
      ${left > 0 && html`<p class="hint">And ${formatCount(left, "more class", "more classes")}.</p>`}
    </div>
  `;
}

function Row({ name, count, row, sheet, picture }) {
  const canvas = useRef(null);
  const { tile } = sheet;
  useEffect(() => {
    if (!picture || count === 0) return;
    const from = [0, row * tile, count * tile, tile];
    canvas.current.getContext("2d").drawImage(picture, ...from, 0, 0, count * tile, tile);
  }, [picture, row, count, tile]);
  return html`
    <figure>
      <canvas
        ref=${canvas}
        width=${count * tile}
        height=${tile}
        role="img"
        aria-label=${`${formatCount(count, "image")} of ${name}`}
      ></canvas>
      <figcaption>${name}</figcaption>
    </figure>
  `;
}
