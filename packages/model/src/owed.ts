/** How what a node owes is told: by spool and number, so that each entry counts once; `spool.ts` keeps it. */
import { Type } from 'typebox';

/** Random, made with the file. */
export const SpoolId = Type.String({ pattern: '^[0-9a-f]{24}$' });
export const SpoolSequence = Type.Integer({ minimum: 1 });
