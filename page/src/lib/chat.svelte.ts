/** The open conversation and the answers under way. */

import * as api from './api';
import { router } from './route.svelte';
import { session } from './session.svelte';
import { visibleRows, type Row } from './tree';
import { followTurn } from './turn';
import type { Attached, Conversation, Message, Settings, TurnDraft } from './types';

export const usual: Settings = { system: '', params: { temperature: 0.7, top_p: 0.95, max_tokens: 384, seed: null } };

interface LiveDraft extends TurnDraft {
  text: string;
}

interface Live {
  conversation: string;
  turn: string;
  question: string;
  drafts: LiveDraft[];
}

/** A message that the server has not told of yet. */
function unsaid(id: string, parent: string | null, role: Message['role'], content: string): Message {
  const created = Date.now() / 1000;
  return { id, parent, role, content, edited: null, created, exposure: null, signals: [], files: [] };
}

/** The messages as read again; those that say the same stay the same objects, so that nothing of them is drawn again. */
function kept(old: Message[], read: Message[]): Message[] {
  const known = new Map(old.map((message) => [message.id, message]));
  return read.map((message) => {
    const before = known.get(message.id);
    return before && JSON.stringify(before) === JSON.stringify(message) ? before : message;
  });
}

class Chat {
  conversations = $state<Conversation[]>([]);
  current = $state<Conversation | null>(null);
  messages = $state.raw<Message[]>([]);
  selected = $state<Record<string, string>>({});
  live = $state<Live | null>(null);
  asking = $state(false);
  /** How many of the oldest messages the model was not given with the last question. */
  leftOut = $state(0);
  twoDrafts = $state(localStorage.getItem('drafts') === '2');
  learn = $state(localStorage.getItem('learn') !== 'no');
  /** The model of the second draft; '' takes the same. */
  other = $state('');
  settings = $state.raw<Settings>(usual);
  files = $state.raw<Attached[]>([]);

  private abort: AbortController | null = null;

  rows = $derived.by(() => {
    const rows = visibleRows(this.messages, this.selected);
    const cut = this.live ? rows.findIndex((row) => row.active.id === this.live!.question) : -1;
    return cut < 0 ? rows : rows.slice(0, cut + 1);
  });

  /** The one answer under way, as a row whose place its message takes when it is there. */
  growing = $derived.by<Row | null>(() => {
    if (!this.live || this.live.drafts.length > 1) return null;
    const { drafts, question } = this.live;
    const active = unsaid(drafts[0]!.message, question, 'assistant', '');
    return { unit: { key: active.id, messages: [active] }, active, index: 0, alternatives: [] };
  });

  get busy() {
    return this.asking || this.live !== null;
  }

  async loadList() {
    this.conversations = await api.listConversations();
  }

  /** Leave the open conversation; an answer under way goes on at the server. */
  leave() {
    this.abort?.abort();
    this.abort = null;
    this.live = null;
    this.asking = false;
    this.current = null;
    this.leftOut = 0;
    this.messages = [];
    this.selected = {};
    this.settings = usual;
    this.files = [];
  }

  async open(id: string) {
    if (this.current?.id === id) return;
    this.leave();
    const found = await api.readConversation(id);
    if (router.current.conversation !== id) return;
    this.current = found.conversation;
    this.messages = found.messages;
    this.settings = found.conversation.settings ?? usual;
    if (found.turn) void this.follow({ turn: found.turn.id });
  }

  async refresh() {
    const id = this.current?.id;
    if (!id) return;
    const found = await api.readConversation(id);
    if (this.current?.id !== id) return;
    this.current = found.conversation;
    this.messages = kept(this.messages, found.messages);
  }

  async change(id: string, values: Partial<Omit<Conversation, 'id'>>) {
    const changed = await api.changeConversation(id, values);
    if (this.current?.id === id) this.current = changed;
    await this.loadList();
  }

  async set(settings: Settings) {
    this.settings = settings;
    if (this.current) await this.change(this.current.id, { settings });
  }

  async restore(id: string) {
    await api.restoreConversation(id);
    await this.loadList();
    router.go(`#/c/${id}`);
  }

  async remove(id: string) {
    await api.deleteConversation(id);
    if (this.current?.id === id) {
      this.leave();
      router.go('#/');
    }
    await this.loadList();
  }

  /** Ask a new question after the last visible answer. */
  async ask(content: string) {
    const model = session.model;
    if (!model || this.busy) return;
    this.asking = true;
    try {
      if (!this.current) {
        this.current = await api.createConversation(model.name);
        router.go(`#/c/${this.current.id}`);
        if (this.settings !== usual) await api.changeConversation(this.current.id, { settings: this.settings });
      }
      const parent = this.rows.at(-1)?.active.id ?? null;
      const attachments = this.files.map(({ name, text }) => ({ name, text }));
      this.files = [];
      await this.follow({ body: { ...this.request(), parent, content, attachments } }, content, parent);
    } finally {
      this.asking = false;
    }
  }

  /** Another answer (or two) to a question. */
  async again(question: string) {
    if (this.busy) return;
    delete this.selected[question];
    await this.follow({ body: { ...this.request(), parent: question } });
  }

  /** Ask the same thing in other words: a new branch beside the old question. */
  async reword(question: Message, content: string) {
    if (this.busy) return;
    delete this.selected[question.parent ?? ''];
    const body = { ...this.request(), parent: question.parent, content, files_of: question.id };
    await this.follow({ body }, content, question.parent, question.files);
  }

  /** Go on with an answer that was cut. */
  async carryOn(answer: Message) {
    if (this.busy) return;
    if (answer.parent) delete this.selected[answer.parent];
    await this.follow({ body: { ...this.request(), drafts: 1, other: null, continues: answer.id } });
  }

  async stop() {
    if (this.live?.turn) await api.stopTurn(this.live.turn);
  }

  private request() {
    return {
      conversation: this.current!.id,
      model: session.model!.name,
      drafts: this.twoDrafts ? 2 : 1,
      other: this.twoDrafts && this.other && this.other !== session.model!.name ? this.other : null,
      system: this.settings.system,
      params: this.settings.params,
      learn: this.learn,
    };
  }

  private async follow(
    begin: { body: unknown } | { turn: string },
    content: string | null = null,
    parent: string | null = null,
    files: Message['files'] = [],
  ) {
    const conversation = this.current!.id;
    const abort = (this.abort = new AbortController());
    const waiting = new Map<string, string>();
    let scheduled = false;
    const flush = () => {
      scheduled = false;
      for (const draft of this.live?.drafts ?? []) draft.text += waiting.get(draft.message) ?? '';
      waiting.clear();
    };
    try {
      await followTurn(
        begin,
        {
          start: (turn, question, drafts, leftOut) => {
            this.leftOut = leftOut;
            if (content !== null) this.addQuestion(question, content, parent, files);
            const shown = drafts.map((draft) => ({ ...draft, text: '' })).sort((a, b) => a.position - b.position);
            this.live = { conversation, turn, question, drafts: shown };
            this.asking = false;
          },
          delta: (message, text) => {
            waiting.set(message, (waiting.get(message) ?? '') + text);
            if (!scheduled) requestAnimationFrame(flush);
            scheduled = true;
          },
          error: (error) => session.report(new api.ApiError(error.code, error.cause, error.fix)),
        },
        abort.signal,
      );
    } catch (error) {
      if (!abort.signal.aborted) session.report(error);
    }
    if (abort.signal.aborted) return;
    await session.attemptQuietly(() => this.refresh());
    if (this.abort === abort) this.live = null;
    await session.attemptQuietly(() => Promise.all([this.loadList(), session.load()]));
  }

  private addQuestion(id: string, content: string, parent: string | null, files: Message['files']) {
    this.messages = [...this.messages, { ...unsaid(id, parent, 'user', content), files }];
  }
}

export const chat = new Chat();
