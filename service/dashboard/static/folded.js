/** Something long behind a line to open it; it is drawn only while it is open. */
import { html, useState } from "./dom.js";

/** label: names the box, which scrolls. children: makes what is inside. */
export function Folded({ summary, label, children }) {
  const [isOpen, setIsOpen] = useState(false);
  return html`
    <details onToggle=${({ target }) => setIsOpen(target.open)}>
      <summary>${summary}</summary>
      ${
        isOpen &&
        html`<div class="scroll" tabindex="0" role="region" aria-label=${label}>
          ${children()}
        </div>`
      }
    </details>
  `;
}
