/** How far a run is, in words. */

import { t } from './i18n.svelte';
import type { Progress } from './types';

export function stepText({ step, total }: Progress): string {
  return total === null ? t('teach.step.open', { step: step ?? 0 }) : t('teach.step', { step: step ?? 0, total });
}
