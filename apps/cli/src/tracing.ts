/**
 * OpenTelemetry traces, where the environment names a collector: requests to the API, imports, publishes and pushes. Otherwise nothing of it is
 * loaded, and the roles' spans are those of OpenTelemetry's API without an SDK, which do nothing.
 *
 * Source: OpenTelemetry specification, "OpenTelemetry Protocol Exporter" and "General SDK configuration" (the variables).
 */
import { trace } from '@opentelemetry/api';
import packageJson from '../package.json' with { type: 'json' };

/** Spans that wait for the collector; what comes beyond that is dropped. */
const MAX_WAITING_SPANS = 2048;
const EXPORT_TIMEOUT_MS = 5000;
/** For what is left at the end. */
const FAREWELL_MS = 1000;

/**
 * @param service what the traces are said to be of, unless the environment says it
 * @returns sends what is left, within a bound, and ends; undefined where no traces are wanted
 */
export async function startTracing(
  service: string,
  env: Readonly<Record<string, string | undefined>>,
): Promise<(() => Promise<void>) | undefined> {
  const isWanted = env.OTEL_EXPORTER_OTLP_ENDPOINT || env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT;
  if (!isWanted || env.OTEL_SDK_DISABLED === 'true') return undefined;
  const [{ BatchSpanProcessor, TracerProvider }, { OTLPTraceExporter }, { resourceFromAttributes }] =
    await Promise.all([
      import('@opentelemetry/sdk-trace'),
      import('@opentelemetry/exporter-trace-otlp-http'),
      import('@opentelemetry/resources'),
    ]);
  const provider = new TracerProvider({
    resource: resourceFromAttributes({
      'service.name': env.OTEL_SERVICE_NAME || service,
      'service.version': packageJson.version,
    }),
    spanProcessors: [
      new BatchSpanProcessor({
        // Endpoint and headers are in the environment.
        exporter: new OTLPTraceExporter({ timeoutMillis: EXPORT_TIMEOUT_MS }),
        maxQueueSize: MAX_WAITING_SPANS,
        exportTimeoutMillis: EXPORT_TIMEOUT_MS,
      }),
    ],
  });
  trace.setGlobalTracerProvider(provider);
  return async () => {
    let deadline: NodeJS.Timeout | undefined;
    const enough = new Promise<void>((resolve) => {
      deadline = setTimeout(resolve, FAREWELL_MS);
    });
    await Promise.race([provider.shutdown().catch(() => {}), enough]);
    clearTimeout(deadline);
    trace.disable();
  };
}
