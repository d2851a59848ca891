import type { ContractCase } from '../../src/testing/index.ts'

/** Run all of a suite and name the cases that an implementation does not pass. */
export async function failedCases(cases: readonly ContractCase[]): Promise<string[]> {
  const failed: string[] = []
  for (const contractCase of cases) await contractCase.run().catch(() => failed.push(contractCase.name))
  return failed
}

/**
 * The first case that an implementation does not pass, if any. All run at once, and those left over are not waited for.
 * Some defects make a case wait for what never comes, which a runner's own time-out ends; here it is half a second.
 */
export async function firstFailure(cases: readonly ContractCase[]): Promise<string | undefined> {
  let timer: NodeJS.Timeout | undefined
  const outOfTime = new Promise<string>((resolve) => {
    timer = setTimeout(resolve, 500, 'a case does not come to its end')
  })
  const runs = cases.map(async (contractCase) => {
    await contractCase.run().catch(() => Promise.reject(new Error(contractCase.name)))
  })
  const failed = Promise.all(runs).then(
    () => undefined,
    (error: Error) => error.message,
  )
  try {
    return await Promise.race([failed, outOfTime])
  } finally {
    clearTimeout(timer)
  }
}
