/** Trying a finished job's network on an image of one's own. */
import { Unreachable, connection, keyHeaders, problemOf } from "./api.js";
import { html, useRef, useState } from "./dom.js";
import { formatPercent } from "./format.js";

const MOST_SHOWN = 5;

export function TryIt({ path, job }) {
  const [tried, setTried] = useState(null);
  const [isOver, setIsOver] = useState(false);
  const latest = useRef(null);
  if (!job.result) return null;

  const take = async (file) => {
    if (!file) return;
    latest.current = file;
    setTried({ file, isBusy: true });
    const preview = await readPreview(file);
    let found;
    try {
      found = { answer: await classify(path, file) };
    } catch (error) {
      found = { refusal: error.message };
    }
    // Another image may have been dropped meanwhile.
    if (latest.current === file) setTried({ file, preview, ...found });
  };
  const onDrop = (event) => {
    event.preventDefault();
    setIsOver(false);
    take(event.dataTransfer.files[0]);
  };
  const onDragOver = (event) => {
    event.preventDefault();
    setIsOver(true);
  };
  return html`
    <section class="card" aria-labelledby="try-title">
      <h2 id="try-title">Try it</h2>
      <div
        class=${`drop ${isOver ? "over" : ""}`}
        onDragOver=${onDragOver}
        onDragLeave=${() => setIsOver(false)}
        onDrop=${onDrop}
      >
        <label for="try-file">Drop an image here, or choose one</label>
        <input
          type="file"
          id="try-file"
          accept="image/*"
          aria-describedby="try-hint"
          onChange=${({ target }) => take(target.files[0])}
        />
        <p class="hint" id="try-hint">The network classifies it; it is not kept.</p>
      </div>
      <div role="status">${tried && html`<${Tried} ...${tried} />`}</div>
    </section>
  `;
}

function Tried({ file, preview, isBusy, answer, refusal }) {
  if (isBusy) return html`<p>${file.name} is looked at.</p>`;
  if (refusal) return html`<p class="banner bad">${refusal}</p>`;
  return html`
    <div class="tried">
      ${preview && html`<img src=${preview} alt=${file.name} />`}
      <table>
        <caption>${file.name} is <strong>${answer.label}</strong></caption>
        <tbody>
          ${answer.probabilities.slice(0, MOST_SHOWN).map(
            ({ name, probability }) => html`
              <tr key=${name}>
                <th scope="row">${name}</th>
                <td>
                  <span class="share">
                    <meter min="0" max="1" value=${probability} aria-hidden="true"></meter>
                    ${formatPercent(probability)}
                  </span>
                </td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}

/** As a data URL; null where the browser can't read it. */
function readPreview(file) {
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => resolve(null));
    reader.readAsDataURL(file);
  });
}

async function classify(path, file) {
  const sent = keyHeaders();
  const body = new FormData();
  body.append("name", file.name);
  body.append("file", file);
  let response;
  let text;
  try {
    response = await fetch(`${path}/predict`, { method: "POST", headers: sent, body });
    text = await response.text();
  } catch {
    connection.set({ isReachable: false });
    throw new Unreachable();
  }
  connection.set({ isReachable: true });
  if (!response.ok) throw problemOf(response.status, text, sent);
  return JSON.parse(text);
}
