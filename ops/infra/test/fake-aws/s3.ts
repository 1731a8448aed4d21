/** S3: buckets that are there, and the objects that are put into them. */
import { found } from './cloud.ts';
import type { Handlers } from './services.ts';
import { AwsError } from './wire.ts';

export type Buckets = Map<string, { readonly region: string; readonly objects: Map<string, string> }>;

export function s3(buckets: Buckets, region: string): Handlers {
  const objectsOf = (bucket: string) => {
    const one = found(buckets.get(bucket), 'NoSuchBucket', 'The specified bucket does not exist', 404);
    if (one.region !== region)
      throw new AwsError(
        'PermanentRedirect',
        'The bucket you are attempting to access must be addressed using the specified endpoint.',
        301,
      );
    return one.objects;
  };
  return {
    PutObject({ Bucket, Key, Body }: { Bucket: string; Key: string; Body: string }) {
      objectsOf(Bucket).set(Key, Body);
      return {};
    },
    GetObject: ({ Bucket, Key }: { Bucket: string; Key: string }) => ({
      Body: found(objectsOf(Bucket).get(Key), 'NoSuchKey', 'The specified key does not exist.', 404),
    }),
  };
}
