import { describe, expect, it } from 'vitest';
import { setCapabilities, usesReturnPath } from './capabilities.ts';
import { DEFAULT_PARAMETERS, setParameters } from './parameters.ts';

describe('setCapabilities', () => {
  it('turns on and off, and leaves the old set alone', () => {
    const before = new Set(['events'] as const);
    const after = setCapabilities(before, [
      { capability: 'events', state: false },
      { capability: 'postcopy-ram', state: true },
    ]);
    expect([...after]).toEqual(['postcopy-ram']);
    expect([...before]).toEqual(['events']);
  });

  it('refuses by name what is not honoured, but lets it stay off', () => {
    expect(() => setCapabilities(new Set(), [{ capability: 'x-colo', state: true }])).toThrow(
      "Capability 'x-colo' is not supported by this host: expected xbzrle, auto-converge, events, return-path, postcopy-ram",
    );
    expect(setCapabilities(new Set(), [{ capability: 'multifd', state: false }]).size).toBe(0);
  });

  it('gives postcopy a return path, asked for or not', () => {
    expect(usesReturnPath(new Set(['postcopy-ram']))).toBe(true);
    expect(usesReturnPath(new Set(['events']))).toBe(false);
  });
});

describe('setParameters', () => {
  it('changes what is named and nothing else', () => {
    expect(setParameters(DEFAULT_PARAMETERS, { 'max-bandwidth': 5n })).toEqual({
      ...DEFAULT_PARAMETERS,
      'max-bandwidth': 5,
    });
  });

  it.each([
    [
      { 'downtime-limit': 2_000_001 },
      /expects an integer in the range of 0 to \(2000 \* 1000\) ms/,
    ],
    [{ 'max-bandwidth': -1 }, /'max-bandwidth' expects an integer/],
    [{ 'xbzrle-cache-size': 2048 }, /'xbzrle_cache_size' expects a power of two no less than/],
    [{ 'xbzrle-cache-size': 12288 }, /'xbzrle_cache_size' expects a power of two no less than/],
    [{ 'xbzrle-cache-size': 2 ** 31 }, /'xbzrle_cache_size' is at most 1 GiB/],
    [
      { 'throttle-trigger-threshold': 0 },
      "Parameter 'throttle_trigger_threshold' expects an integer in the range of 1 to 100",
    ],
    [
      { 'cpu-throttle-initial': 100 },
      "Parameter 'cpu_throttle_initial' expects an integer in the range of 1 to 99",
    ],
    [
      { 'cpu-throttle-increment': 0.5 },
      "Parameter 'cpu_throttle_increment' expects an integer in the range of 1 to 99",
    ],
    [{ 'cpu-throttle-tailslow': 1 }, /'cpu_throttle_tailslow' expects a boolean/],
    [
      { 'max-cpu-throttle': 19 },
      "Parameter 'max_cpu_throttle' expects an integer in the range of cpu_throttle_initial to 99",
    ],
    [{ 'max-cpu-throttle': 40, 'cpu-throttle-initial': 50 }, /'max_cpu_throttle' expects/],
    [{ 'tls-authz': '' }, /'tls-authz' is not supported by this host/],
    [{ 'tls-creds': 1 }, "Parameter 'tls-creds' expects a string"],
  ])('refuses %o', (changes, message) => {
    expect(() => setParameters(DEFAULT_PARAMETERS, changes)).toThrow(message);
  });
});
