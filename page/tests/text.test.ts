import './setup';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inlineDollars } from '../src/lib/dollars';
import { i18n, t } from '../src/lib/i18n.svelte';
import { rateText, stepText } from '../src/lib/progress';
import { frames } from '../src/lib/turn';
import { firstMoment, summed } from '../src/lib/usage';
import type { Progress } from '../src/lib/types';

test('formulas are told from prices', () => {
  for (const maths of ['$x$', '$x^2$', '$\\alpha$', '$a+b$', '$f(x)$', '$2x$', '$\\frac{1}{2}$', '$x_1$ and more', '$a = b$']) {
    assert.ok(inlineDollars(maths), maths);
  }
  for (const money of ['$5', '$5 or $10', '$5-$10', '$1,000.00$', '$5$', '$ x$', '$x $', '$x$5', '$20k–$30k', '$PATH and $HOME', '$$', '$']) {
    assert.equal(inlineDollars(money), null, money);
  }
  assert.deepEqual(inlineDollars('$x^2$ costs $5'), { raw: '$x^2$', tex: 'x^2' });
});

async function read(...chunks: (string | Uint8Array)[]) {
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    start(stream) {
      for (const chunk of chunks) stream.enqueue(typeof chunk === 'string' ? encoder.encode(chunk) : chunk);
      stream.close();
    },
  });
  const found = [];
  for await (const frame of frames(body)) found.push(frame);
  return found;
}

test('events are read however the network cuts them', async () => {
  const whole = 'id: 0\nevent: start\ndata: {"a": 1}\n\n: waiting\n\nid: 1\nevent: delta\ndata: "é 🙂: x"\n\n';
  const expected = [
    { id: 0, event: 'start', data: '{"a": 1}' },
    { id: 1, event: 'delta', data: '"é 🙂: x"' },
  ];
  assert.deepEqual(await read(whole), expected);
  const bytes = new TextEncoder().encode(whole);
  for (let size = 1; size < 9; size += 1) {
    const pieces = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) => bytes.slice(index * size, (index + 1) * size));
    assert.deepEqual(await read(...pieces), expected, `pieces of ${size}`);
  }
});

test('a half event at the end of a broken stream is left out', async () => {
  assert.equal((await read('id: 0\nevent: delta\ndata: "a"\n\nid: 1\nevent: del')).length, 1);
});

test('texts have plurals, figures and both languages', () => {
  i18n.set('en');
  assert.equal(t('versions.votes', { n: 1 }), '1 vote');
  assert.equal(t('versions.votes', { n: 1200 }), '1,200 votes');
  assert.equal(t('no.such.key'), 'no.such.key');
  assert.equal(i18n.figure(-0.0001), '0.000');
  assert.equal(i18n.figure(-12.34), '−12.3');
  assert.equal(i18n.money(1234.5, 'eur'), '€1,234.50');
  assert.equal(i18n.money(0.00038, 'eur'), '€0.00038');
  assert.equal(i18n.duration(89), '89 seconds');
  assert.equal(i18n.duration(5400), '2 hours');
  i18n.set('fr');
  assert.equal(t('versions.votes', { n: 0 }), '0 vote'.replace('vote', t('versions.votes', { n: 1 }).slice(2)));
  assert.match(i18n.money(1234.5, 'eur'), /^1.234,50.€$/);
  i18n.set('en');
});

test('how fast a run goes is said in what suits it', () => {
  const idle: Progress = {
    stages: [], step: null, total: null, share: null, seconds_left: null, steps_per_second: null, tokens_per_second: null, curve: [],
  };
  assert.equal(rateText(idle), '');
  assert.equal(rateText({ ...idle, tokens_per_second: 1234.5, steps_per_second: 9 }), '1,230 tokens a second');
  assert.equal(rateText({ ...idle, steps_per_second: 4 }), '4 steps a second');
  assert.equal(rateText({ ...idle, steps_per_second: 0.25 }), '4 seconds a step');
  assert.equal(stepText({ ...idle, step: 3, total: 9 }), 'step 3 of 9');
  assert.equal(stepText({ ...idle, step: 3 }), 'step 3');
});

test('usage and costs are summed by day, caller and model', () => {
  const bucket = <Result>(start_time: number, ...results: Result[]) => ({ start_time, end_time: start_time + 86_400, results });
  const used = (key: string | null, model: string, tokens: number) =>
    ({ api_key_id: key, model, num_model_requests: 2, input_tokens: tokens, output_tokens: 1 });
  const cost = (key: string | null, model: string, value: number) =>
    ({ amount: { value, currency: 'eur' }, line_item: model, api_key_id: key });
  const found = summed(
    [{ data: [bucket(0, used('k', 'a', 10), used(null, 'b', 5)), bucket(86_400)] }, { data: [bucket(0, used('k', 'b', 7))] }],
    { data: [bucket(0, cost('k', 'a', 0.5), cost(null, 'b', 0)), bucket(86_400)] },
  );
  assert.deepEqual(found.days.map((day) => [day.input, day.output, day.cost]), [[22, 3, 0.5], [0, 0, 0]]);
  assert.deepEqual(found.people.map((one) => [one.name, one.requests, one.cost]), [['k', 4, 0.5], ['', 2, 0]]);
  assert.deepEqual(found.models.map((one) => [one.name, one.input]), [['b', 12], ['a', 10]]);
  assert.equal(found.currency, 'eur');
  assert.equal(summed([], { data: [] }).currency, '');
  assert.equal(firstMoment(86_400 * 40 + 5), 86_400 * 11);
});
