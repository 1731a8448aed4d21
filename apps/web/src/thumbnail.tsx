import { useEffect, useRef, useState } from 'react';
import { mediaPaths } from './api.ts';

const REFRESH_MS = 10_000;

/**
 * What the channel shows now, over whatever lies below it: nothing until the first picture is there, the
 * last one while the next is on its way or cannot be had. Asks only while it can be seen.
 */
export function Thumbnail({ channelName, token }: { channelName: string; token: string | undefined }) {
  const rootRef = useRef<HTMLDivElement>(null);
  const [shownUrl, setShownUrl] = useState<string>();

  useEffect(() => {
    const root = rootRef.current;
    if (root === null) return;
    let isOnScreen = false;
    let askedAtMs = Number.NEGATIVE_INFINITY;
    let isOver = false;
    const ask = () => {
      if (!isOnScreen || document.hidden || performance.now() - askedAtMs < REFRESH_MS) return;
      askedAtMs = performance.now();
      const url = thumbnailUrl(channelName, token, Date.now());
      const image = new Image();
      image.src = url;
      // Decoded before it is shown, so that the old picture does not flicker.
      image.decode().then(
        () => {
          if (!isOver) setShownUrl(url);
        },
        () => {}, // no picture just now: the next turn asks again
      );
    };
    const observer = new IntersectionObserver(([entry]) => {
      isOnScreen = entry?.isIntersecting ?? false;
      ask();
    });
    observer.observe(root);
    document.addEventListener('visibilitychange', ask);
    const timer = setInterval(ask, 1000);
    return () => {
      isOver = true;
      observer.disconnect();
      document.removeEventListener('visibilitychange', ask);
      clearInterval(timer);
    };
  }, [channelName, token]);

  return (
    <div ref={rootRef} className="thumbnail" aria-hidden="true">
      {shownUrl !== undefined && <img className="thumbnail" src={shownUrl} alt="" />}
    </div>
  );
}

/** A new address every ten seconds, the same for everybody, so that caches help. */
export function thumbnailUrl(channelName: string, token: string | undefined, nowUnixMs: number): string {
  const { thumbnail } = mediaPaths(channelName, token);
  return `${thumbnail}${token === undefined ? '?' : '&'}at=${Math.floor(nowUnixMs / REFRESH_MS)}`;
}
