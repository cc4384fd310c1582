import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// The tests of `src/lib` that need no browser, as files that node runs: npm test
export default defineConfig({
  plugins: [svelte()],
  build: {
    ssr: true,
    outDir: process.env.CAUSERIE_TESTS_OUT ?? 'node_modules/.tests',
    emptyOutDir: true,
    rollupOptions: { input: ['tests/tree.test.ts', 'tests/text.test.ts'], output: { entryFileNames: '[name].mjs' } },
  },
});
