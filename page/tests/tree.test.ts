import assert from 'node:assert/strict';
import { test } from 'node:test';
import { citedSources, visibleRows } from '../src/lib/tree';
import type { Message } from '../src/lib/types';

function message(id: string, parent: string | null, more: Partial<Message> = {}): Message {
  const exposure = { id: `exp_${id}`, version: 'demo@1', group: null, position: 0, finish: 'stop' };
  const role = id.startsWith('q') ? 'user' : 'assistant';
  return { id, parent, role, content: id, edited: null, created: 0, signals: [], exposure: role === 'user' ? null : exposure, ...more };
}

const shown = (messages: Message[], selected: Record<string, string> = {}) => visibleRows(messages, selected).map((row) => row.active.id);
const draft = (id: string, parent: string, position: number, value = '') =>
  message(id, parent, {
    exposure: { id, version: null, group: 'g', position, finish: 'stop' },
    signals: value ? [{ id: 's', kind: 'choice', value, reasons: [], comment: '' }] : [],
  });

test('the path leads to the newest message, not to the newest sibling', () => {
  const tree = [message('q1', null), message('a1', 'q1'), message('a2', 'q1'), message('q2', 'a1'), message('a3', 'q2')];
  assert.deepEqual(shown(tree), ['q1', 'a1', 'q2', 'a3']);
  assert.deepEqual(shown(tree, { q1: 'a2' }), ['q1', 'a2']);
  assert.deepEqual(shown([...tree, message('a4', 'q1')]), ['q1', 'a4']);
});

test('wordings of the first question are alternatives too', () => {
  const tree = [message('q1', null), message('a1', 'q1'), message('q2', null), message('a2', 'q2')];
  const [first] = visibleRows(tree, { '': 'q1' });
  assert.equal(first!.index, 0);
  assert.deepEqual(first!.alternatives.map((unit) => unit.key), ['q1', 'q2']);
  assert.deepEqual(shown(tree), ['q2', 'a2']);
});

test('drafts shown together are one row, in their order on the screen', () => {
  const [, row] = visibleRows([message('q1', null), draft('b', 'q1', 1), draft('a', 'q1', 0)], {});
  assert.deepEqual(row!.unit.messages.map((one) => one.id), ['a', 'b']);
  assert.equal(row!.active.id, 'a');
});

test('the talk goes on from the draft that was chosen, or gone on from', () => {
  const pair = (left: string, right: string) => [message('q1', null), draft('a', 'q1', 0, left), draft('b', 'q1', 1, right)];
  assert.equal(visibleRows(pair('', 'right'), {})[1]!.active.id, 'b');
  assert.equal(visibleRows(pair('tie', ''), {})[1]!.active.id, 'a');
  assert.deepEqual(shown([...pair('', ''), message('q2', 'b')]), ['q1', 'b', 'q2']);
});

test('nothing, and messages without their parents, make no rows that hang in the air', () => {
  assert.deepEqual(shown([]), []);
  assert.deepEqual(shown([message('a9', 'gone')]), []);
});

test('sources are known by their numbers', () => {
  const notes = [
    { index: 9, number: 3, filename: 'c.txt', quote: 'sea' },
    { index: 2, number: 1, filename: 'a.txt' },
  ];
  const found = citedSources(message('a1', null, { annotations: notes }));
  assert.deepEqual(found[0], { number: 1, name: 'a.txt', quote: '' });
  assert.equal(found[1], undefined);
  assert.deepEqual(found[2], { number: 3, name: 'c.txt', quote: 'sea' });
});
