import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

/** Where `starling up` listens; only the development server uses it. */
const networkAddress = 'http://localhost:8080';

export default defineConfig({
  plugins: [react()],
  build: {
    // The site is served under a policy without data: scripts and fonts, so nothing is inlined.
    assetsInlineLimit: 0,
    // hls.js and mpegts.js are large, but load only when a channel is opened.
    chunkSizeWarningLimit: 700,
  },
  server: {
    proxy: {
      '/api': networkAddress,
      '/live': { target: networkAddress, ws: true },
      '/playlist.m3u': networkAddress,
    },
  },
});
