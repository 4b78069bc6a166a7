/** Asks for an API key where the server wants one. */
import { connection, setKey } from "./api.js";
import { html, useEffect, useRef } from "./dom.js";
import { useStore } from "./store.js";

export function KeyDialog() {
  const { needsKey, wasKeyRefused } = useStore(connection);
  const dialog = useRef(null);
  const input = useRef(null);
  useEffect(() => {
    if (needsKey && !dialog.current.open) dialog.current.showModal();
    if (!needsKey && dialog.current.open) dialog.current.close();
  }, [needsKey]);
  const onSubmit = (event) => {
    event.preventDefault();
    const key = input.current.value.trim();
    if (!key) return;
    input.current.value = "";
    setKey(key);
  };
  return html`
    <dialog ref=${dialog} aria-labelledby="key-title" onCancel=${(e) => e.preventDefault()}>
      <form onSubmit=${onSubmit}>
        <h2 id="key-title">This server needs an API key</h2>
        <p id="key-hint" class="hint">
          ${
            wasKeyRefused
              ? "The key was refused: it is not known here, or was revoked."
              : "Whoever runs the server makes one with tinyfit keys create NAME."
          }
          ${" "}It is kept until you close this tab.
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
            aria-invalid=${wasKeyRefused}
            placeholder="tf_…"
            required
          />
        </div>
        <div class="buttons end"><button class="primary">Use this key</button></div>
      </form>
    </dialog>
  `;
}
