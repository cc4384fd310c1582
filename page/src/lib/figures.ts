/** Names of what runs log, in the reader's language where they are known. */

import { i18n, t } from './i18n.svelte';

export function figureName(name: string): string {
  const bare = name.replace(/^held-out /, '');
  const known = i18n.has(`figure.${bare}`) ? t(`figure.${bare}`) : bare.replaceAll('_', ' ');
  return bare === name ? known : t('figure.held_out', { name: known });
}
