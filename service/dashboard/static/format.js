/** Numbers with their units, and times, as people read them. 1 MB = 10^6 bytes. */

const UNITS = [
  [1e9, "GB"],
  [1e6, "MB"],
  [1e3, "kB"],
];

/** "5.0 MB"; a no-break space keeps number and unit together. */
export function formatBytes(bytes) {
  for (const [size, unit] of UNITS) {
    if (bytes >= size) return `${(bytes / size).toFixed(1)}\u00a0${unit}`;
  }
  return `${Math.round(bytes)}\u00a0B`;
}

export const megabytes = (bytes) => bytes / 1e6;

/** "4.96 MB", "0.02 MB": peaks and their parts, to be compared. */
export const formatPeak = (bytes) => `${megabytes(bytes).toFixed(2)}\u00a0MB`;

/** A share as "97.6%". */
export const formatPercent = (share) => `${(100 * share).toFixed(1)}%`;

/** A round share as "75%". */
export const formatShare = (share) => `${Math.round(100 * share)}%`;

/** A standard error of a share as "± 2.0", in points. */
export const formatSpread = (share) => `±\u00a0${(100 * share).toFixed(1)}`;

/** A ratio as "1.6×". */
export const formatTimes = (ratio) => `${ratio.toFixed(1)}×`;

/** Multiply-accumulates as "3.9 M"; a dash where they are not known. */
export function formatMacs(count) {
  if (count === null) return "–";
  const [size, unit] = count >= 1e9 ? [1e9, "G"] : [1e6, "M"];
  return `${(count / size).toFixed(1)}\u00a0${unit}`;
}

/** A difference of shares as "+26.2", in points. */
export function formatSigned(share) {
  const points = (100 * share).toFixed(1);
  return share < 0 ? points.replace("-", "−") : `+${points}`;
}

/** A difference of shares as "+26.2 points". */
export const formatPoints = (share) => `${formatSigned(share)}\u00a0points`;

/** "1 797 images", "1 image". */
export function formatCount(count, noun, plural = `${noun}s`) {
  return `${formatNumber(count)}\u00a0${count === 1 ? noun : plural}`;
}

/** Thousands apart, by a narrow no-break space. */
export const formatNumber = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, "\u202f");

/** "45 s", "2 min 5 s", "3 h 10 min", "2 days 4 h". */
export function formatSeconds(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}\u00a0s`;
  const parts = [
    [Math.floor(whole / 86_400), whole >= 172_800 ? "days" : "day"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const start = parts.findIndex(([amount]) => amount > 0);
  return parts
    .slice(start, start + 2)
    .filter(([amount]) => amount > 0)
    .map(([amount, unit]) => `${amount}\u00a0${unit}`)
    .join(" ");
}

/** Time left, no finer than anybody can tell: "less than 10 s", "about 2 min". */
export function formatTimeLeft(seconds) {
  if (seconds < 10) return "less than 10\u00a0s left";
  if (seconds < 60) return `about ${Math.ceil(seconds / 10) * 10}\u00a0s left`;
  if (seconds < 3600) return `about ${Math.round(seconds / 60)}\u00a0min left`;
  return `about ${formatSeconds(Math.round(seconds / 600) * 600)} left`;
}

/** How long ago: "just now", "4 min ago"; from a day on the date. */
export function formatAgo(date, nowMs) {
  const seconds = (nowMs - date.getTime()) / 1000;
  if (seconds < 45) return "just now";
  if (seconds < 3600) return `${Math.max(1, Math.round(seconds / 60))}\u00a0min ago`;
  if (seconds < 86_400) return `${Math.round(seconds / 3600)}\u00a0h ago`;
  return new Intl.DateTimeFormat("en", { dateStyle: "medium" }).format(date);
}

export function formatMoment(date) {
  return new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium" }).format(date);
}

/** "14:03:27". */
export const formatClock = (date) =>
  new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" }).format(date);
