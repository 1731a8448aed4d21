import { useId } from 'react';

/** A picture for a channel, drawn from its name alone: the same name always gets the same picture. */
export function Poster({ name, title }: { name: string; title: string }) {
  const gradientId = useId();
  const look = posterLook(name);
  return (
    <svg className="poster" viewBox="0 0 320 180" preserveAspectRatio="xMidYMid slice" aria-hidden="true">
      <defs>
        <linearGradient id={gradientId} x1="0" y1="0" x2="1" y2="1">
          <stop offset="0" stopColor={look.from} />
          <stop offset="1" stopColor={look.to} />
        </linearGradient>
      </defs>
      <rect width="320" height="180" fill={`url(#${gradientId})`} />
      <g fill="none" stroke="#fff" strokeOpacity="0.09" strokeWidth="14">
        {[46, 78, 110, 142, 174].map((radius) => (
          <circle key={radius} cx={look.centreX} cy={look.centreY} r={radius} />
        ))}
      </g>
      <text
        x="24"
        y="152"
        fill="#fff"
        fillOpacity="0.94"
        fontSize="64"
        fontWeight="750"
        letterSpacing="-2"
        fontFamily="system-ui, sans-serif"
      >
        {monogram(title)}
      </text>
    </svg>
  );
}

/** The first letters of the first two words, or the first two letters of the only one. */
export function monogram(title: string): string {
  const words = title.split(/[\s\-_.]+/).filter((word) => word !== '');
  const first = Array.from(words[0] ?? '');
  const second = Array.from(words[1] ?? '');
  const letters = second.length > 0 ? [first[0], second[0]] : first.slice(0, 2);
  return letters.join('').toUpperCase();
}

/** The colours that a starling's feathers take in the sun; all dark enough for white letters. */
const plumage = [
  ['#0f766e', '#1e2a78'],
  ['#5b3fd6', '#152a6b'],
  ['#8a2f9e', '#2b1a63'],
  ['#1f6fb8', '#1b1f5e'],
  ['#b03a5b', '#40195c'],
  ['#0d8a72', '#0c3554'],
  ['#a8552c', '#4a1646'],
  ['#3d56d9', '#3a1466'],
] as const;

function posterLook(name: string) {
  const hash = hashOf(name);
  const [from, to] = plumage[(hash >>> 5) % plumage.length] ?? plumage[0];
  return {
    from,
    to,
    centreX: 170 + ((hash >>> 15) % 130),
    centreY: 20 + ((hash >>> 22) % 110),
  };
}

/** FNV-1a, 32 bits: cheap, and one changed letter changes the whole picture. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (const letter of text) {
    hash = Math.imul(hash ^ (letter.codePointAt(0) ?? 0), 0x01000193);
  }
  return hash >>> 0;
}
