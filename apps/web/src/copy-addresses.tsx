import { useEffect, useId, useRef, useState } from 'react';
import { mediaPaths, withToken } from './api.ts';
import { LinkIcon } from './icons.tsx';

const CONFIRMATION_MS = 2_000;

/**
 * Opens a list of the addresses under which other players find the channel.
 * @param token opens a private channel
 */
export function CopyAddresses({ channelName, token }: { channelName: string; token: string | undefined }) {
  const [isOpen, setOpen] = useState(false);
  const rootRef = useRef<HTMLDivElement>(null);
  const buttonRef = useRef<HTMLButtonElement>(null);
  const listId = useId();
  const paths = mediaPaths(channelName, token);

  useEffect(() => {
    if (!isOpen) return;
    const onPointerDown = (event: PointerEvent) => {
      if (event.target instanceof Node && !rootRef.current?.contains(event.target)) setOpen(false);
    };
    document.addEventListener('pointerdown', onPointerDown);
    return () => document.removeEventListener('pointerdown', onPointerDown);
  }, [isOpen]);

  useEffect(() => {
    const root = rootRef.current;
    if (!isOpen || root === null) return;
    const onKeyDown = (event: KeyboardEvent) => {
      if (event.key !== 'Escape') return;
      setOpen(false);
      buttonRef.current?.focus();
    };
    root.addEventListener('keydown', onKeyDown);
    return () => root.removeEventListener('keydown', onKeyDown);
  }, [isOpen]);

  return (
    <div className="copy" ref={rootRef}>
      <button
        ref={buttonRef}
        type="button"
        className="button"
        aria-expanded={isOpen}
        aria-controls={listId}
        onClick={() => setOpen(!isOpen)}
      >
        <LinkIcon /> Copy address
      </button>
      <div id={listId} className="copy-list" hidden={!isOpen}>
        <Address label="HLS" hint="Browsers, phones, smart TVs" path={paths.hls} />
        <Address label="FLV" hint="Least delay" path={paths.flv} />
        <Address label="MPEG-TS" hint="Set-top boxes and recorders" path={paths.ts} />
        <Address
          label="M3U playlist"
          hint="All channels, for VLC and IPTV players"
          path={withToken('/playlist.m3u', token)}
        />
      </div>
    </div>
  );
}

function Address({ label, hint, path }: { label: string; hint: string; path: string }) {
  const inputRef = useRef<HTMLInputElement>(null);
  const inputId = useId();
  const [isCopied, setCopied] = useState(false);
  useEffect(() => {
    if (!isCopied) return;
    const timer = setTimeout(() => setCopied(false), CONFIRMATION_MS);
    return () => clearTimeout(timer);
  }, [isCopied]);

  const copy = async () => {
    const input = inputRef.current;
    if (input !== null && (await copyText(input))) setCopied(true);
  };
  return (
    <div className="address">
      <label htmlFor={inputId}>
        {label} <span className="muted">{hint}</span>
      </label>
      <div className="address-row">
        <input
          ref={inputRef}
          id={inputId}
          type="text"
          readOnly
          value={new URL(path, location.href).href}
          onFocus={(event) => event.currentTarget.select()}
        />
        <button
          type="button"
          className="button"
          onClick={() => void copy()}
          aria-label={`Copy the ${label} address`}
        >
          {isCopied ? 'Copied' : 'Copy'}
        </button>
      </div>
      <span className="visually-hidden" role="status">
        {isCopied ? `${label} address copied` : ''}
      </span>
    </div>
  );
}

/** Browsers give the clipboard only to pages over HTTPS or on localhost; elsewhere the old command works. */
async function copyText(input: HTMLInputElement): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(input.value);
    return true;
  } catch {
    input.select();
    return document.execCommand('copy');
  }
}
