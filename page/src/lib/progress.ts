/** How far a run is, and how fast it goes, in words. */

import { i18n, t } from './i18n.svelte';
import type { Progress } from './types';

export function stepText({ step, total }: Progress): string {
  return total === null ? t('teach.step.open', { step: step ?? 0 }) : t('teach.step', { step: step ?? 0, total });
}

/** "1,200 tokens a second"; of slow steps "12 seconds a step"; '' while it is not known. */
export function rateText({ tokens_per_second: tokens, steps_per_second: steps }: Progress): string {
  if (tokens) return t('rate.tokens', { rate: i18n.number(tokens) });
  if (!steps) return '';
  return steps >= 1 ? t('rate.steps', { rate: i18n.number(steps, 2) }) : t('rate.seconds', { rate: i18n.number(1 / steps, 2) });
}
