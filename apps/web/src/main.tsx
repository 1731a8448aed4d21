import './theme.css';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { BrowserRouter } from 'react-router';
import { App } from './app.tsx';
import { applyRememberedTheme } from './theme-toggle.tsx';

applyRememberedTheme();

const queryClient = new QueryClient({
  defaultOptions: {
    // The network may be on this very computer, so a browser that is offline still asks; and every
    // question is asked again within seconds anyway, so a failed one is not repeated on its own.
    queries: { networkMode: 'always', retry: false },
  },
});

const root = document.getElementById('root');
if (root === null) throw new Error('index.html lacks the element with the id "root".');
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={queryClient}>
      <BrowserRouter>
        <App />
      </BrowserRouter>
    </QueryClientProvider>
  </StrictMode>,
);
