import { useEffect, useId, useRef } from 'react';
import { CloseIcon } from '../icons.tsx';
import { keyName, shortcuts } from './keyboard.ts';

/** The list of keys. Single keys can be switched off there, for people who speak to their computer. */
export function HelpDialog(props: {
  hasShortcuts: boolean;
  onHasShortcuts: (hasShortcuts: boolean) => void;
  onClose: () => void;
}) {
  const dialogRef = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  useEffect(() => {
    dialogRef.current?.showModal();
  }, []);
  const close = () => dialogRef.current?.close();
  return (
    <dialog
      ref={dialogRef}
      className="help"
      aria-labelledby={titleId}
      onClose={props.onClose}
      onKeyDown={(event) => {
        if (event.key === '?') close();
      }}
    >
      <div className="help-heading">
        <h2 id={titleId}>Keys</h2>
        <button type="button" className="icon-button" onClick={close} aria-label="Close">
          <CloseIcon />
        </button>
      </div>
      <dl>
        {shortcuts.map(({ action, keys, label }) => (
          <div key={action}>
            <dt>{label}</dt>
            <dd>
              {keys.map((key) => (
                <kbd key={key}>{keyName(key)}</kbd>
              ))}
            </dd>
          </div>
        ))}
      </dl>
      <label className="help-switch">
        <input
          type="checkbox"
          checked={props.hasShortcuts}
          onChange={(event) => props.onHasShortcuts(event.currentTarget.checked)}
        />
        Use these keys on this page
      </label>
    </dialog>
  );
}
