/** Interface text: English and French, chosen by the reader, else by the browser. */

import { en, type Messages } from '../messages/en';
import { fr } from '../messages/fr';
import { frErrors } from '../messages/fr-errors';

export const languages = { en: 'English', fr: 'Français' } as const;
export type Language = keyof typeof languages;

const tables: Record<Language, Messages> = { en, fr };

function initial(): Language {
  const wanted = localStorage.getItem('language') ?? navigator.language.slice(0, 2);
  return wanted in tables ? (wanted as Language) : 'en';
}

class I18n {
  language = $state<Language>(initial());
  private plural = $derived(new Intl.PluralRules(this.language));

  set(language: Language) {
    this.language = language;
    localStorage.setItem('language', language);
  }

  /** The text of `key`; `{name}` is replaced, and `n` chooses between `key_one` and `key_other`. */
  t = (key: string, values: Record<string, string | number> = {}): string => {
    const table: Record<string, string> = tables[this.language];
    const n = values['n'];
    const plural = typeof n === 'number' ? `${key}_${this.plural.select(n) === 'one' ? 'one' : 'other'}` : key;
    const text = table[plural] ?? table[key] ?? key;
    return text.replace(/\{(\w+)\}/g, (whole, name: string) => {
      const value = values[name];
      return value === undefined ? whole : typeof value === 'number' ? this.number(value, Number.isInteger(value) ? 15 : 3) : value;
    });
  };

  /** What went wrong: what its code means in the reader's language, and the server's own words, which are English. */
  failure(code: string, ...words: string[]): string {
    const told = words.filter(Boolean).join(' — ');
    const meaning = this.language === 'fr' ? frErrors[code] : undefined;
    return meaning ? `${meaning} (${told})` : told;
  }

  has = (key: string): boolean => key in tables[this.language];

  number(value: number, digits = 3): string {
    return new Intl.NumberFormat(this.language, { maximumSignificantDigits: Math.max(digits, 1) }).format(value);
  }

  /** A measured figure: three decimals, fewer for large ones, a real minus sign, and no minus before zero. */
  figure(value: number): string {
    const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 3;
    const options = { minimumFractionDigits: digits, maximumFractionDigits: digits, signDisplay: 'negative' } as const;
    return new Intl.NumberFormat(this.language, options).format(value).replace('-', '−');
  }

  /** An amount of a currency (three letters), with more digits for small ones. */
  money(value: number, currency: string): string {
    const digits = value !== 0 && Math.abs(value) < 0.1 ? { maximumSignificantDigits: 2 } : {};
    return new Intl.NumberFormat(this.language, { style: 'currency', currency: currency || 'usd', ...digits }).format(value);
  }

  date(seconds: number): string {
    const options = { dateStyle: 'medium', timeStyle: 'short' } as const;
    return new Intl.DateTimeFormat(this.language, options).format(seconds * 1000);
  }

  duration(seconds: number): string {
    if (seconds < 90) return this.t('time.seconds', { n: Math.max(1, Math.round(seconds)) });
    if (seconds < 5400) return this.t('time.minutes', { n: Math.round(seconds / 60) });
    return this.t('time.hours', { n: Math.round(seconds / 3600) });
  }
}

export const i18n = new I18n();
export const t = i18n.t;
