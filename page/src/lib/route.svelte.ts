/** The view and the conversation, kept in the address after `#`. */

export type View = 'chat' | 'teach' | 'runs' | 'admin';

interface Route {
  view: View;
  conversation: string | null;
  run: string | null;
  /** What a new server's first admin was given. */
  code: string | null;
}

function parse(hash: string): Route {
  const [view, id] = hash.replace(/^#\/?/, '').split('/');
  const none = { conversation: null, run: null, code: null };
  if (view === 'runs') return { ...none, view, run: id ?? null };
  if (view === 'teach' || view === 'admin') return { ...none, view };
  return { ...none, view: 'chat', conversation: view === 'c' && id ? id : null, code: view === 'first' && id ? id : null };
}

class Router {
  current = $state<Route>(parse(location.hash));

  constructor() {
    addEventListener('hashchange', () => (this.current = parse(location.hash)));
  }

  go(hash: string) {
    if (location.hash !== hash) location.hash = hash;
    this.current = parse(hash);
  }
}

export const router = new Router();
