/** Larger parts that are loaded when a text first needs them: mathematics and code colours. */

import { ApiError } from './api';

type Maths = (tex: string, display: boolean) => string;
type Colours = (code: string, language: string) => string | null;

class Extras {
  maths = $state.raw<Maths | null>(null);
  colours = $state.raw<Colours | null>(null);
  private asked = new Set<string>();

  needMaths() {
    this.once('maths', async () => (this.maths = (await import('./maths')).maths));
  }

  needColours() {
    this.once('colours', async () => (this.colours = (await import('./colours')).colours));
  }

  private once(name: string, load: () => Promise<unknown>) {
    if (this.asked.has(name)) return;
    this.asked.add(name);
    // Without them the text stays readable; the next page load tries again.
    setTimeout(() => load().catch((error) => console.warn(new ApiError('offline', String(error), '').message)), 0);
  }
}

export const extras = new Extras();
