/**
 * Markdown of answers as harmless HTML: raw HTML becomes text, images become links, DOMPurify has the last word.
 * An answer is cut into blocks so that a growing one redraws only its last block.
 */

import DOMPurify from 'dompurify';
import { Marked, type Token, type Tokens, type TokensList } from 'marked';
import { displayMaths, inlineMaths } from './dollars';
import { extras } from './extras.svelte';
import type { Source } from './tree';

export type Block = { kind: 'html'; html: string } | { kind: 'code'; text: string; language: string };

const alike = (a: Block | undefined, b: Block) =>
  a?.kind === 'html' ? b.kind === 'html' && a.html === b.html
  : b.kind === 'code' && a?.kind === 'code' && a.text === b.text && a.language === b.language;

const escapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escape = (text: string) => text.replace(/[&<>"']/g, (character) => escapes[character]!);

const marked = new Marked({
  gfm: true,
  breaks: true,
  extensions: [displayMaths, inlineMaths],
  renderer: {
    html: ({ text }) => escape(text),
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? '☑ ' : '☐ '),
    code: ({ text }) => `<pre><code>${escape(text)}\n</code></pre>`,
  },
});

const TAGS = (
  'a b blockquote br code del em h1 h2 h3 h4 h5 h6 hr i li ol p pre s span strong sub sup table tbody td th thead tr ul ' +
  'math menclose mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace msqrt mstyle ' +
  'msub msubsup msup mtable mtd mtext mtr munder munderover none'
).split(' ');
const ATTRIBUTES = (
  'align href start title class display displaystyle scriptlevel mathvariant stretchy fence separator form lspace ' +
  'rspace width height depth linethickness accent accentunder columnalign columnspacing rowspacing minsize maxsize ' +
  'movablelimits symmetric largeop notation'
).split(' ');
/** Classes that our own drawing sets; no other comes through. */
const CLASSES = /^(?:(?:hljs-|tml-)[\w-]+_?|language_|function_|class_|inherited__|cite|\s)+$/;

const purify = DOMPurify();
purify.addHook('uponSanitizeAttribute', (_node, data) => {
  if (data.attrName === 'class' && !CLASSES.test(data.attrValue)) data.keepAttr = false;
});
purify.addHook('afterSanitizeAttributes', (node) => {
  if (node.tagName === 'A') {
    node.setAttribute('target', '_blank');
    node.setAttribute('rel', 'noopener noreferrer nofollow');
  }
});

export function clean(html: string): string {
  return purify.sanitize(html, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ADD_URI_SAFE_ATTR: ATTRIBUTES.filter((name) => name !== 'href'),
    ALLOW_ARIA_ATTR: false,
    ALLOW_DATA_ATTR: false,
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  });
}

/** Numbers in brackets that name a source become marks that tell it. */
function cited(html: string, sources: readonly Source[]): string {
  return html.replace(/(<code>[\s\S]*?<\/code>)|\[(\d{1,2})\]/g, (whole, code: string | undefined, number: string) => {
    const source = code ? undefined : sources[Number(number) - 1];
    if (!source) return whole;
    const told = source.quote ? `${source.name}: ${source.quote.slice(0, 200)}` : source.name;
    return `<sup class="cite" title="${escape(told)}">${number}</sup>`;
  });
}

const CACHE_SIZE = 2000;
const cache = new Map<string, string>();

function blockHtml(token: Token, links: TokensList['links'], sources: readonly Source[]): string {
  const cites = sources.map((one) => `${one.number} ${one.name} ${one.quote}`).join('\n');
  const key = [extras.maths ? '1' : '0', cites, token.raw].join('\0');
  let html = cache.get(key);
  if (html === undefined) {
    const list = Object.assign([token], { links }) as TokensList;
    html = clean(sources.length ? cited(marked.parser(list), sources) : marked.parser(list));
    if (cache.size > CACHE_SIZE) cache.clear();
    cache.set(key, html);
  }
  return html;
}

function block(token: Token, links: TokensList['links'], sources: readonly Source[]): Block {
  if (token.type !== 'code') return { kind: 'html', html: blockHtml(token, links, sources) };
  const { text, lang } = token as Tokens.Code;
  return { kind: 'code', text, language: (lang ?? '').split(/\s/)[0]! };
}

/** The blocks of a text in order: code apart, the rest as sanitised HTML. `sources` are what `[1]`, … cite. */
export function markdownBlocks(text: string, sources: readonly Source[] = []): Block[] {
  const tokens = marked.lexer(text);
  return tokens.filter((token) => token.type !== 'space').map((token) => block(token, tokens.links, sources));
}

/** Blocks that may still change while a text grows: a list goes on after an empty line, a line becomes a heading. */
const UNSETTLED = 3;

/** The blocks of a text that is read again and again, mostly longer: blocks that stay the same stay the same objects. */
export class Drawn {
  private blocks: Block[] = [];
  private text = '';
  /** How many blocks are settled, how far they reach, and with which extras they were drawn. */
  private settled = 0;
  private reach = 0;
  private extras = '';

  read(text: string, sources: readonly Source[], growing: boolean): Block[] {
    const drawn = String(extras.maths !== null);
    if (!growing || drawn !== this.extras || !text.startsWith(this.text)) [this.settled, this.reach] = [0, 0];
    [this.text, this.extras] = [text, drawn];
    const tokens = marked.lexer(text.slice(this.reach));
    const fresh = tokens.filter((token) => token.type !== 'space').map((token) => block(token, tokens.links, sources));
    const old = this.blocks;
    const kept = fresh.map((one, index) => (alike(old[this.settled + index], one) ? old[this.settled + index]! : one));
    this.blocks = [...old.slice(0, this.settled), ...kept];
    if (growing) this.settle(tokens);
    return this.blocks;
  }

  private settle(tokens: Token[]) {
    for (const token of tokens.slice(0, Math.max(0, tokens.length - 2 * UNSETTLED))) {
      this.reach += token.raw.length;
      if (token.type !== 'space') this.settled += 1;
    }
  }
}
