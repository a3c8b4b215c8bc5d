import fc from 'fast-check';

// The same properties are tried in every run; WHERRY_SEED=n tries others.
fc.configureGlobal({ ...fc.readConfigureGlobal(), seed: Number(process.env['WHERRY_SEED'] ?? 1) });
