import { useEffect, useRef } from 'react';
import { Link, NavLink, Route, Routes, useLocation } from 'react-router';
import { AccountLink, AccountPage, LoginPage } from './account-page.tsx';
import { withToken } from './api.ts';
import { ChannelGridPage } from './channel-grid.tsx';
import { GuidePage } from './guide-page.tsx';
import { usePageTitle } from './page.ts';
import { ThemeToggle } from './theme-toggle.tsx';
import { useViewingToken } from './viewing-token.ts';
import { WatchPage } from './watch-page.tsx';

export function App() {
  const token = useViewingToken();
  return (
    <>
      <a className="skip-link" href="#content">
        Skip to the content
      </a>
      <header className="site-header">
        <Link className="wordmark" to="/" aria-label="Starling, all channels">
          <img src="/icon.svg" alt="" width="32" height="32" />
          <span>Starling</span>
        </Link>
        <nav aria-label="Main">
          <NavLink to="/" end>
            Channels
          </NavLink>
          <NavLink to="/guide">Guide</NavLink>
        </nav>
        <ThemeToggle />
      </header>
      <Content />
      <footer className="site-footer">
        <p>Starling, a television network that one person can own.</p>
        <p>
          <a href={withToken('/playlist.m3u', token)}>Playlist for TV apps</a>
        </p>
        <p>
          <AccountLink />
        </p>
      </footer>
    </>
  );
}

function Content() {
  const mainRef = useRef<HTMLElement>(null);
  const { pathname } = useLocation();
  const lastPathname = useRef(pathname);
  useEffect(() => {
    if (lastPathname.current === pathname) return;
    lastPathname.current = pathname;
    // As after loading a page: from the top, and a screen reader goes on in the new content.
    scrollTo(0, 0);
    mainRef.current?.focus({ preventScroll: true });
  }, [pathname]);
  return (
    <main id="content" ref={mainRef} tabIndex={-1}>
      <Routes>
        <Route index element={<ChannelGridPage />} />
        <Route path="watch/:channel" element={<WatchPage />} />
        <Route path="guide" element={<GuidePage />} />
        <Route path="login" element={<LoginPage />} />
        <Route path="account" element={<AccountPage />} />
        <Route path="*" element={<NotFoundPage />} />
      </Routes>
    </main>
  );
}

function NotFoundPage() {
  usePageTitle('No such page');
  return (
    <div className="page notice">
      <p className="notice-code" aria-hidden="true">
        404
      </p>
      <h1>Nothing on this frequency</h1>
      <p>There is no page at this address. It may have moved, or the address has a typing error.</p>
      <Link className="button button-primary" to="/">
        See all channels
      </Link>
    </div>
  );
}
