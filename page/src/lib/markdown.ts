/**
 * Markdown of answers as harmless HTML: raw HTML becomes text, images become links, DOMPurify has the last word.
 * An answer is cut into blocks so that a growing one redraws only its last block.
 */

import DOMPurify from 'dompurify';
import { Marked, type Token, type TokensList } from 'marked';

const escapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escape = (text: string) => text.replace(/[&<>"']/g, (character) => escapes[character]!);

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escape(text),
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? '☑ ' : '☐ '),
  },
});

const TAGS = (
  'a b blockquote br code del em h1 h2 h3 h4 h5 h6 hr i li ol p pre s span strong sub sup table tbody td th thead tr ul'
).split(' ');

const purify = DOMPurify();
purify.addHook('afterSanitizeAttributes', (node) => {
  if (node.tagName === 'A') {
    node.setAttribute('target', '_blank');
    node.setAttribute('rel', 'noopener noreferrer nofollow');
  }
});

function clean(html: string): string {
  return purify.sanitize(html, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ['align', 'href', 'start', 'title'],
    ALLOW_ARIA_ATTR: false,
    ALLOW_DATA_ATTR: false,
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  });
}

const CACHE_SIZE = 2000;
const cache = new Map<string, string>();

function blockHtml(token: Token, links: TokensList['links']): string {
  const key = token.raw;
  let html = cache.get(key);
  if (html === undefined) {
    const list = Object.assign([token], { links }) as TokensList;
    html = clean(marked.parser(list));
    if (cache.size > CACHE_SIZE) cache.clear();
    cache.set(key, html);
  }
  return html;
}

/** The blocks of a text as sanitised HTML, in order. */
export function markdownBlocks(text: string): string[] {
  const tokens = marked.lexer(text);
  return tokens.filter((token) => token.type !== 'space').map((token) => blockHtml(token, tokens.links));
}
