/** A question before something that can't be taken back. */
import { html, useId, useLayoutEffect, useRef } from "./dom.js";

export function ConfirmDialog({ title, text, confirm, refuse, onConfirm, onCancel }) {
  const dialog = useRef(null);
  const id = useId();
  // Open before the next key is read: an Escape that follows the click at once counts.
  useLayoutEffect(() => {
    const element = dialog.current;
    const opener = document.activeElement;
    element.showModal();
    return () => {
      element.close();
      if (opener.isConnected) opener.focus();
    };
  }, []);
  return html`
    <dialog
      ref=${dialog}
      aria-labelledby=${`${id}-title`}
      aria-describedby=${`${id}-text`}
      onCancel=${(event) => {
        event.preventDefault();
        onCancel();
      }}
    >
      <h2 id=${`${id}-title`}>${title}</h2>
      <p id=${`${id}-text`}>${text}</p>
      <div class="buttons end">
        <button type="button" autofocus onClick=${onCancel}>${refuse}</button>
        <button type="button" class="danger" onClick=${onConfirm}>${confirm}</button>
      </div>
    </dialog>
  `;
}
