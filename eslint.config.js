import eslint from '@eslint/js'
import tseslint from 'typescript-eslint'

export default tseslint.config(
  // AssemblyScript looks like TypeScript and is not; what every runtime must run as it is, and what runs the checks, has no types.
  { ignores: ['.ci/', 'dist/', 'coverage/', 'artifacts/', 'node_modules/', 'src/protocol/wasm/', 'test/runtimes/*.mjs'] },
  eslint.configs.recommended,
  ...tseslint.configs.recommendedTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      // A contract's method may be async in one adapter and not in the next.
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/unbound-method': 'off',
      // Ids may hold any character; the checks that keep control characters out name them.
      'no-control-regex': 'off',
      // `Outcome` is "a refusal or nothing", which TypeScript writes as a union with void.
      '@typescript-eslint/no-invalid-void-type': 'off',
      'no-console': 'error',
    },
  },
  { files: ['examples/**', 'bench/**', 'test/fuzz/main.ts'], rules: { 'no-console': 'off' } },
  { files: ['*.config.js'], ...tseslint.configs.disableTypeChecked },
)
