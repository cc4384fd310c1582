/** The message tree as rows on the screen: one row per question or answer, with its alternatives. */

import type { Message } from './types';

/** One alternative: a single message, or the drafts that were shown side by side. */
export interface Unit {
  key: string;
  messages: Message[];
}

export interface Row {
  unit: Unit;
  active: Message;
  index: number;
  alternatives: Unit[];
}

const ROOT = '';

/**
 * The visible path. `selected` maps a parent's id to the key of the alternative the reader turned to; elsewhere the path
 * leads to the newest message.
 */
export function visibleRows(messages: Message[], selected: Record<string, string>): Row[] {
  const children = new Map<string, Message[]>();
  for (const message of messages) {
    const parent = message.parent ?? ROOT;
    children.set(parent, [...(children.get(parent) ?? []), message]);
  }
  const newest = newestBelow(messages);
  const rows: Row[] = [];
  let parent = ROOT;
  while (children.has(parent)) {
    const alternatives = unitsOf(children.get(parent)!);
    const chosen = alternatives.findIndex((unit) => unit.key === selected[parent]);
    const index = chosen < 0 ? latest(alternatives, newest) : chosen;
    const unit = alternatives[index]!;
    const active = activeOf(unit, children);
    rows.push({ unit, active, index, alternatives });
    parent = active.id;
  }
  return rows;
}

/** For each message the place of the newest one that follows from it, itself included; parents come before children. */
function newestBelow(messages: Message[]): Map<string, number> {
  const found = new Map<string, number>();
  for (let place = messages.length - 1; place >= 0; place -= 1) {
    const { id, parent } = messages[place]!;
    const own = Math.max(found.get(id) ?? 0, place);
    found.set(id, own);
    if (parent !== null) found.set(parent, Math.max(found.get(parent) ?? 0, own));
  }
  return found;
}

function latest(units: Unit[], newest: Map<string, number>): number {
  const places = units.map((unit) => Math.max(...unit.messages.map((message) => newest.get(message.id) ?? 0)));
  return places.lastIndexOf(Math.max(...places));
}

function unitsOf(siblings: Message[]): Unit[] {
  const units: Unit[] = [];
  for (const message of siblings) {
    const group = message.exposure?.group ?? null;
    const unit = group === null ? undefined : units.find((other) => other.key === group);
    if (unit) unit.messages.push(message);
    else units.push({ key: group ?? message.id, messages: [message] });
  }
  for (const unit of units) unit.messages.sort((a, b) => (a.exposure?.position ?? 0) - (b.exposure?.position ?? 0));
  return units;
}

/** The choice that stands on a pair of drafts: "left", "right", "tie" or null. */
export function choiceOf(unit: Unit) {
  const found = unit.messages.flatMap((message) => message.signals).find((signal) => signal.kind === 'choice');
  return found ?? null;
}

function activeOf(unit: Unit, children: Map<string, Message[]>): Message {
  const choice = choiceOf(unit)?.value;
  const wanted = choice === 'right' ? 1 : 0;
  const chosen = choice ? unit.messages[wanted] : undefined;
  return chosen ?? unit.messages.find((message) => children.has(message.id)) ?? unit.messages[0]!;
}

/** What an answer's marks cite, each at its number less one: the file, and the passage where there was one. */
export interface Source {
  number: number;
  name: string;
  quote: string;
}

export function citedSources(message: Message): Source[] {
  const found: Source[] = [];
  for (const { number, filename, quote } of message.annotations ?? []) {
    found[number - 1] = { number, name: filename, quote: quote ?? '' };
  }
  return found;
}
