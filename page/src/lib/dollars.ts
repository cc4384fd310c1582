/** Finding TeX between `$…$`, `$$…$$`, `\(…\)` and `\[…\]`, without taking prices for it. */

import type { TokenizerAndRendererExtension, Tokens } from 'marked';
import { extras } from './extras.svelte';

const PLAIN_AMOUNT = /^[\d\s.,%kKmMbB+\-–—/*]*$/;

/** `$x$` only where nothing is blank inside the dollars, no digit follows, and what is inside is no amount. */
export function inlineDollars(source: string): { raw: string; tex: string } | null {
  const found = /^\$(?![\s$])((?:\\[\s\S]|[^$\\\n])+?)(?<!\s)\$(?![\d$])/.exec(source);
  if (!found) return null;
  const tex = found[1]!;
  const mathematical = /[\\^_={}<>]/.test(tex) || /^[A-Za-z]$|^[A-Za-z]\(|^[\d.]*[A-Za-z]$|[A-Za-z]\s*[+\-*/]|[+\-*/]\s*[A-Za-z]/.test(tex);
  return PLAIN_AMOUNT.test(tex) || !mathematical ? null : { raw: found[0], tex };
}

function draw(tex: string, display: boolean, raw: string): string {
  const escaped = raw.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
  if (!extras.maths) {
    extras.needMaths();
    return `<code>${escaped}</code>`;
  }
  return extras.maths(tex, display);
}

const DISPLAY = [/^\$\$([\s\S]+?)\$\$/, /^\\\[([\s\S]+?)\\\]/];

export const displayMaths: TokenizerAndRendererExtension = {
  name: 'displayMaths',
  level: 'block',
  start: (source) => source.match(/^ {0,3}(?:\$\$|\\\[)/m)?.index,
  tokenizer(source) {
    const indent = /^ {0,3}/.exec(source)![0];
    for (const pattern of DISPLAY) {
      const found = pattern.exec(source.slice(indent.length));
      if (found) return { type: 'displayMaths', raw: indent + found[0], text: found[1]!.trim() };
    }
    return undefined;
  },
  renderer: (token: Tokens.Generic) => `<p>${draw(token['text'], true, token.raw)}</p>`,
};

export const inlineMaths: TokenizerAndRendererExtension = {
  name: 'inlineMaths',
  level: 'inline',
  start: (source) => source.match(/\$|\\[([]/)?.index,
  tokenizer(source) {
    for (const pattern of DISPLAY) {
      const found = pattern.exec(source);
      if (found) return { type: 'inlineMaths', raw: found[0], text: found[1]!.trim(), display: true };
    }
    const bracketed = /^\\\(([\s\S]+?)\\\)/.exec(source);
    if (bracketed) return { type: 'inlineMaths', raw: bracketed[0], text: bracketed[1]!, display: false };
    const dollars = inlineDollars(source);
    return dollars ? { type: 'inlineMaths', raw: dollars.raw, text: dollars.tex, display: false } : undefined;
  },
  renderer: (token: Tokens.Generic) => draw(token['text'], token['display'], token.raw),
};
