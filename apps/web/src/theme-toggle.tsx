import { useEffect, useState } from 'react';
import { MoonIcon, SunIcon } from './icons.tsx';
import { recall, remember } from './remembered.ts';

type Theme = 'light' | 'dark';

const prefersLight = matchMedia('(prefers-color-scheme: light)');

/** Applies the theme that the viewer chose, before anything is drawn. */
export function applyRememberedTheme(): void {
  applyTheme(chosenTheme());
}

/** Switches between light and dark. Switching back to what the system has follows the system again. */
export function ThemeToggle() {
  const [systemTheme, setSystemTheme] = useState(readSystemTheme);
  const [chosen, setChosen] = useState(chosenTheme);
  useEffect(() => {
    const onChange = () => setSystemTheme(readSystemTheme());
    prefersLight.addEventListener('change', onChange);
    return () => prefersLight.removeEventListener('change', onChange);
  }, []);

  const other: Theme = (chosen ?? systemTheme) === 'dark' ? 'light' : 'dark';
  const toggle = () => {
    const next = other === systemTheme ? undefined : other;
    remember('theme', next);
    applyTheme(next);
    setChosen(next);
  };
  const label = `Switch to the ${other} theme`;
  return (
    <button type="button" className="icon-button" onClick={toggle} aria-label={label} title={label}>
      {other === 'light' ? <SunIcon /> : <MoonIcon />}
    </button>
  );
}

function readSystemTheme(): Theme {
  return prefersLight.matches ? 'light' : 'dark';
}

function chosenTheme(): Theme | undefined {
  const theme = recall('theme');
  return theme === 'light' || theme === 'dark' ? theme : undefined;
}

function applyTheme(theme: Theme | undefined): void {
  if (theme === undefined) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}
