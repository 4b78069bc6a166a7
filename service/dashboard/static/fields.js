/** Form fields: a label, what to know, the control, and what the server says of it. */
import { html } from "./dom.js";

/** children: makes the control from the attributes that tie it to label, hint and error. */
export function Field({ id, label, hint, error, children }) {
  const described = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ");
  const attributes = {
    id,
    "aria-describedby": described || undefined,
    "aria-invalid": error ? "true" : undefined,
  };
  return html`
    <div class=${`field ${error ? "wrong" : ""}`}>
      <label for=${id}>${label}</label>
      ${children(attributes)}
      ${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}
      ${error && html`<p class="error" id=${`${id}-error`}>${error}</p>`}
    </div>
  `;
}

export function TextField({ value, onChange, inputmode, placeholder, ...field }) {
  return html`
    <${Field} ...${field}>
      ${(attributes) => html`
        <input
          ...${attributes}
          type="text"
          autocomplete="off"
          spellcheck=${false}
          inputmode=${inputmode}
          placeholder=${placeholder}
          value=${value}
          onInput=${(event) => onChange(event.target.value)}
        />
      `}
    <//>
  `;
}

/** options: [value, what people read], in order. */
export function SelectField({ value, onChange, options, ...field }) {
  return html`
    <${Field} ...${field}>
      ${(attributes) => html`
        <select
          ...${attributes}
          value=${value}
          onChange=${(event) => onChange(event.target.value)}
        >
          ${options.map(
            ([option, text]) => html`
              <option key=${option} value=${option} selected=${option === value}>${text}</option>
            `,
          )}
        </select>
      `}
    <//>
  `;
}

export function CheckField({ id, label, hint, value, onChange }) {
  return html`
    <div class="field check">
      <input
        type="checkbox"
        id=${id}
        checked=${value}
        aria-describedby=${`${id}-hint`}
        onChange=${(event) => onChange(event.target.checked)}
      />
      <label for=${id}>${label}</label>
      <p class="hint" id=${`${id}-hint`}>${hint}</p>
    </div>
  `;
}
