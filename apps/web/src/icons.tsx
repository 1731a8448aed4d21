import type { ReactNode } from 'react';

/** Icons of 24 by 24 units, drawn with the colour of the text. The control around one has the label. */
function Icon({ children }: { children: ReactNode }) {
  return (
    <svg className="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      {children}
    </svg>
  );
}

export const PlayIcon = () => (
  <Icon>
    <path
      className="icon-fill"
      d="M7 4.8v14.4a.8.8 0 0 0 1.2.7l11.6-7.2a.8.8 0 0 0 0-1.4L8.2 4.1A.8.8 0 0 0 7 4.8z"
    />
  </Icon>
);
export const PauseIcon = () => (
  <Icon>
    <rect className="icon-fill" x="6" y="4.5" width="4.2" height="15" rx="1.2" />
    <rect className="icon-fill" x="13.8" y="4.5" width="4.2" height="15" rx="1.2" />
  </Icon>
);
export const StartOverIcon = () => (
  <Icon>
    <path d="M5 5v14" />
    <path
      className="icon-fill"
      d="M19 5.6v12.8a.8.8 0 0 1-1.2.7L8.4 12.7a.8.8 0 0 1 0-1.4l9.4-6.4a.8.8 0 0 1 1.2.7z"
    />
  </Icon>
);
export const SoundIcon = () => (
  <Icon>
    <path className="icon-fill" d="M4 9.5v5h3.5l4.5 4v-13l-4.5 4z" />
    <path d="M15.5 9a4.2 4.2 0 0 1 0 6M18 6.5a7.8 7.8 0 0 1 0 11" />
  </Icon>
);
export const MutedIcon = () => (
  <Icon>
    <path className="icon-fill" d="M4 9.5v5h3.5l4.5 4v-13l-4.5 4z" />
    <path d="m16 9.5 5 5m0-5-5 5" />
  </Icon>
);
export const FullscreenIcon = () => (
  <Icon>
    <path d="M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5" />
  </Icon>
);
export const ExitFullscreenIcon = () => (
  <Icon>
    <path d="M9 4v5H4M15 4v5h5M9 20v-5H4M15 20v-5h5" />
  </Icon>
);
export const PictureInPictureIcon = () => (
  <Icon>
    <rect x="3" y="5" width="18" height="14" rx="2" />
    <rect className="icon-fill" x="12" y="11.5" width="7" height="5.5" rx="1" />
  </Icon>
);
export const StatsIcon = () => (
  <Icon>
    <path d="M4 20h16M7 16v-4M12 16V6M17 16V9" />
  </Icon>
);
export const HelpIcon = () => (
  <Icon>
    <rect x="2.5" y="6" width="19" height="12" rx="2" />
    <path d="M6 10h.01M10 10h.01M14 10h.01M18 10h.01M7.5 14h9" />
  </Icon>
);
export const CloseIcon = () => (
  <Icon>
    <path d="m6 6 12 12M18 6 6 18" />
  </Icon>
);
export const LinkIcon = () => (
  <Icon>
    <path d="M10 14a4 4 0 0 0 6 .4l2.6-2.6a4 4 0 0 0-5.7-5.7L11.5 7.5M14 10a4 4 0 0 0-6-.4l-2.6 2.6a4 4 0 0 0 5.7 5.7l1.4-1.4" />
  </Icon>
);
export const SunIcon = () => (
  <Icon>
    <circle cx="12" cy="12" r="4" />
    <path d="M12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4" />
  </Icon>
);
export const MoonIcon = () => (
  <Icon>
    <path d="M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z" />
  </Icon>
);
