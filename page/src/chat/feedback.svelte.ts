/** Sending and taking back what somebody says about an answer; the messages are read again afterwards. */

import * as api from '../lib/api';
import { chat } from '../lib/chat.svelte';
import { t } from '../lib/i18n.svelte';
import { session } from '../lib/session.svelte';
import type { Signal } from '../lib/types';

export async function say(signal: Record<string, unknown>): Promise<boolean> {
  return session.attempt(async () => {
    await api.sendSignal({ id: api.newSignalId(), ...signal });
    await chat.refresh();
  });
}

export async function takeBack(signal: Signal): Promise<boolean> {
  return session.attempt(async () => {
    await api.withdrawSignal(signal.id);
    await chat.refresh();
    session.tell(t('vote.withdrawn'));
  });
}

/** Say the same again with more to it: the old signal is withdrawn first. */
export async function sayMore(old: Signal, signal: Record<string, unknown>): Promise<boolean> {
  return session.attempt(async () => {
    await api.withdrawSignal(old.id);
    await api.sendSignal({ id: api.newSignalId(), ...signal });
    await chat.refresh();
  });
}

export const reasons = {
  up: ['correct', 'clear', 'complete', 'good_style'],
  down: ['wrong', 'unclear', 'incomplete', 'too_long', 'ignored_instruction', 'wrong_language', 'unsafe'],
} as const;
