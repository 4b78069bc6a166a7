/** Deleting a dataset, which the server allows where no job is over it. */
import { request } from "./api.js";
import { ConfirmDialog } from "./confirm_dialog.js";
import { html, useState } from "./dom.js";
import { forget } from "./polling.js";

export function DatasetRemoval({ dataset, onRemoved }) {
  const [isAsked, setIsAsked] = useState(false);
  const [refusal, setRefusal] = useState(null);
  const remove = async () => {
    setIsAsked(false);
    setRefusal(null);
    try {
      await request(`/datasets/${dataset.id}`, { method: "DELETE" });
    } catch (failure) {
      setRefusal(failure.message);
      return;
    }
    forget("/datasets");
    onRemoved();
  };
  return html`
    <div class="buttons removal">
      <button type="button" onClick=${() => setIsAsked(true)}>Delete these images</button>
    </div>
    ${refusal && html`<p class="banner bad" role="alert">${refusal}</p>`}
    ${
      isAsked &&
      html`<${ConfirmDialog}
      title="Delete these images?"
      text=${`${dataset.name} is removed from the server for good.`}
      confirm="Delete for good"
      refuse="Keep them"
      onCancel=${() => setIsAsked(false)}
      onConfirm=${remove}
    />`
    }
  `;
}
