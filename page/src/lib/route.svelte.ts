/** The view and the conversation, kept in the address after `#`. */

export type View = 'chat' | 'teach' | 'runs';

interface Route {
  view: View;
  conversation: string | null;
}

function parse(hash: string): Route {
  const [view, id] = hash.replace(/^#\/?/, '').split('/');
  if (view === 'teach' || view === 'runs') return { view, conversation: null };
  return { view: 'chat', conversation: view === 'c' && id ? id : null };
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
