/** Asks for an API key where the server wants one. */
import { connection, setKey } from "./api.js";
import { html, useEffect, useRef, useState } from "./dom.js";
import { useStore } from "./store.js";

/** Printable ASCII: with most other characters, fetch throws and sends nothing. */
const POSSIBLE_KEY = /^[!-~]+$/;

export function KeyDialog() {
  const { needsKey, wasKeyRefused } = useStore(connection);
  const [isImpossible, setIsImpossible] = useState(false);
  const dialog = useRef(null);
  const input = useRef(null);
  useEffect(() => {
    if (needsKey && !dialog.current.open) dialog.current.showModal();
    if (!needsKey && dialog.current.open) dialog.current.close();
  }, [needsKey]);
  const refusal = refusalOf(isImpossible, wasKeyRefused);
  const onSubmit = (event) => {
    event.preventDefault();
    const key = input.current.value.trim();
    if (!key) return;
    input.current.value = "";
    setIsImpossible(!POSSIBLE_KEY.test(key));
    if (POSSIBLE_KEY.test(key)) setKey(key);
    else input.current.focus();
  };
  return html`
    <dialog ref=${dialog} aria-labelledby="key-title" onCancel=${(e) => e.preventDefault()}>
      <form onSubmit=${onSubmit}>
        <h2 id="key-title">This server needs an API key</h2>
        <p id="key-hint" class=${refusal ? "error" : "hint"}>
          ${
            refusal ??
            "Whoever runs the server makes one with tinyfit keys create NAME. " +
              "It is kept until you close this tab."
          }
        </p>
        <div class="field">
          <label for="key-input">API key</label>
          <input
            ref=${input}
            id="key-input"
            type="password"
            autocomplete="off"
            spellcheck=${false}
            aria-describedby="key-hint"
            aria-invalid=${refusal !== null}
            placeholder="tf_…"
            required
          />
        </div>
        <div class="buttons end"><button class="primary">Use this key</button></div>
      </form>
    </dialog>
  `;
}

function refusalOf(isImpossible, wasKeyRefused) {
  if (isImpossible) return "This can't be a key: it has a space or a character such as “…” in it.";
  if (wasKeyRefused) return "The key was refused: it is not known here, or was revoked.";
  return null;
}
