/** What every view shares: the served models, the model in use, the theme, the last error. */

import * as api from './api';
import { i18n, t } from './i18n.svelte';
import type { Access, Model } from './types';

export const themes = ['auto', 'light', 'dark'] as const;
export type Theme = (typeof themes)[number];

class Session {
  ready = $state(false);
  failed = $state(false);
  models = $state<Model[]>([]);
  modelName = $state(localStorage.getItem('model') ?? '');
  theme = $state<Theme>((localStorage.getItem('theme') as Theme | null) ?? 'auto');
  access = $state<Access | null>(null);
  notice = $state('');
  /** What the notice offers to undo. */
  undo = $state.raw<(() => void) | null>(null);
  problem = $state('');
  lineageOf = $state<string | null>(null);

  model = $derived(this.models.find((model) => model.name === this.modelName) ?? this.models[0] ?? null);

  async load() {
    try {
      this.access = await api.getAccess();
      if (this.access.person) this.models = (await api.getState()).models;
      this.failed = false;
    } catch {
      this.failed = true;
    }
    this.ready = true;
  }

  tell(notice: string, undo: (() => void) | null = null) {
    this.notice = notice;
    this.undo = undo;
  }

  choose(name: string) {
    this.modelName = name;
    localStorage.setItem('model', name);
  }

  setTheme(theme: Theme) {
    this.theme = theme;
    localStorage.setItem('theme', theme);
    this.applyTheme();
  }

  applyTheme() {
    if (this.theme === 'auto') delete document.documentElement.dataset['theme'];
    else document.documentElement.dataset['theme'] = this.theme;
  }

  /** Show why something did not work, until the next thing is tried. */
  report(error: unknown) {
    if (error instanceof api.ApiError && error.code === 'offline') this.problem = t('error.offline');
    else if (error instanceof api.ApiError) this.problem = i18n.failure(error.code, error.cause_, error.fix);
    else this.problem = String(error);
  }

  /** As `attempt`, but an earlier problem stays on the screen when this goes well. */
  async attemptQuietly(work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.report(error);
    }
  }

  /** Run something that may fail; its failure is shown. Returns whether it went well. */
  async attempt(work: () => Promise<unknown>): Promise<boolean> {
    this.problem = '';
    try {
      await work();
      return true;
    } catch (error) {
      this.report(error);
      return false;
    }
  }
}

export const session = new Session();
