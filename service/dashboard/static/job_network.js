/** The chosen network: its blocks by stage, and how a training step is carried out. */
import { html } from "./dom.js";
import { planSentences } from "./words.js";

const NUM_ELASTIC_STAGES = 5;

export function Network({ job, best }) {
  const chosen = job.result ?? best;
  if (!chosen) return null;
  const stages = blocksByStage(chosen.subnet);
  const numBlocks = stages.flat().length;
  return html`
    <section class="card" aria-labelledby="network-title">
      <h2 id="network-title">${job.result ? "The chosen network" : "The best network so far"}</h2>
      <p class="hint">
        ${chosen.resolution} × ${chosen.resolution}\u00a0px input, ${numBlocks} elastic blocks.
        Each shows its kernel size and, in width, its expand ratio.
        ${best?.lite_residual && describeLite(best.lite_residual)}
      </p>
      <ol class="network">
        ${stages.map(
          (blocks, stage) => html`
            <li key=${stage}>
              <span class="stage-name">Stage ${stage + 1}</span>
              <ol>
                ${blocks.map(
                  ({ kernelSize, expandRatio }, index) => html`
                    <li key=${index} class=${`block expand-${expandRatio} kernel-${kernelSize}`}>
                      ${kernelSize}×${kernelSize}
                      <span><span class="hidden">, expand ratio </span>×${expandRatio}</span>
                    </li>
                  `,
                )}
              </ol>
            </li>
          `,
        )}
      </ol>
      <h3>A training step</h3>
      <ul class="plan">
        ${planSentences(chosen.plan, chosen.resolution).map(
          (text) => html`<li key=${text}>${text}</li>`,
        )}
      </ul>
    </section>
  `;
}

const describeLite = ({ groups, max_kernel_size: size }) =>
  ` Their lite residual modules have ${groups} groups and kernels of up to ${size}×${size}.`;

/** Kernel sizes and expand ratios stand block by block for stages of full depth; one more, where
    there is one, is a last stage of a single block. */
export function blocksByStage({ kernel_sizes: sizes, expand_ratios: ratios, depths }) {
  const maxDepth = Math.floor(sizes.length / NUM_ELASTIC_STAGES);
  const block = (index) => ({ kernelSize: sizes[index], expandRatio: ratios[index] });
  const stages = depths.map((depth, stage) =>
    Array.from({ length: depth }, (_, index) => block(stage * maxDepth + index)),
  );
  const last = NUM_ELASTIC_STAGES * maxDepth;
  return sizes.length > last ? [...stages, [block(last)]] : stages;
}
