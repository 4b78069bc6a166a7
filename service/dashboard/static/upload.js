/** Uploads, by XMLHttpRequest: fetch does not tell how much has been sent. */
import { Unreachable, connection, keyHeaders, problemOf } from "./api.js";

/** Send an archive of images; onProgress hears the share sent, 0 to 1. Returns { done, stop }. */
export function uploadDataset({ name, blob, skipBroken }, onProgress) {
  const sending = new XMLHttpRequest();
  const sent = keyHeaders();
  const done = new Promise((resolve, reject) => {
    sending.upload.addEventListener("progress", ({ loaded, total }) => onProgress(loaded / total));
    sending.addEventListener("load", () => {
      connection.set({ isReachable: true });
      if (sending.status < 300) resolve(JSON.parse(sending.responseText));
      else reject(problemOf(sending.status, sending.responseText, sent));
    });
    sending.addEventListener("error", () => reject(new Unreachable()));
    sending.addEventListener("abort", () => resolve(null));
  });
  const form = new FormData();
  form.append("name", name);
  if (skipBroken) form.append("skip_broken", "true");
  form.append("file", blob);
  sending.open("POST", "/datasets");
  sending.setRequestHeader("Accept", "application/json");
  for (const [name, value] of Object.entries(sent)) sending.setRequestHeader(name, value);
  sending.send(form);
  return { done, stop: () => sending.abort() };
}
