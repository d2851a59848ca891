import { describe, expect, it } from 'vitest'
import { messageStoreContract } from '../../src/testing/index.ts'
import { DEFECTS, LOSSES, NaiveMessageStore, type Defect } from './naive-message-store.ts'
import { failedCases, firstFailure } from './failed-cases.ts'

const casesWith = (defect?: Defect) => messageStoreContract({ open: () => ({ subject: new NaiveMessageStore(defect) }) })

describe('messageStoreContract', () => {
  it('passes a store that has nothing wrong with it', async () => {
    expect(await failedCases(casesWith())).toEqual([])
  })

  it.each(DEFECTS)('sees that %s', async (defect) => {
    expect(await firstFailure(casesWith(defect))).toBeDefined()
  })

  it.each(LOSSES)('sees that a restart loses %s', async (loss) => {
    const casesAfter = (lost?: typeof loss) =>
      messageStoreContract({
        open: () => ({ subject: new NaiveMessageStore() }),
        reopen: ({ subject }: { subject: NaiveMessageStore }) => ({ subject: subject.restarted(lost) }),
      })
    expect(await failedCases(casesAfter())).toEqual([])
    expect(await firstFailure(casesAfter(loss))).toBeDefined()
  })

  it('asks no store to sweep that does not', async () => {
    const open = () => {
      const subject = new NaiveMessageStore()
      Object.assign(subject, { sweep: undefined })
      return { subject }
    }
    expect(await failedCases(messageStoreContract({ open }))).toEqual([])
  })

  it('sees that a restart forgets everything, numbers or repeats, and skips restarts when it is given none', async () => {
    const forgetful = messageStoreContract({
      open: () => ({ subject: new NaiveMessageStore() }),
      reopen: () => ({ subject: new NaiveMessageStore() }),
    })
    const withoutRestart = messageStoreContract({ open: () => ({ subject: new NaiveMessageStore() }) })
    expect(forgetful.length - withoutRestart.length).toBe(9)
    expect(await failedCases(forgetful)).toEqual(forgetful.slice(withoutRestart.length).map((contractCase) => contractCase.name))
  })

  it('gives every case a store of its own and closes it, also when the case fails', async () => {
    let openCount = 0
    let closeCount = 0
    const cases = messageStoreContract({
      open: () => {
        openCount++
        return { subject: new NaiveMessageStore('a repeat is stored again'), close: () => void closeCount++ }
      },
    })
    expect(await failedCases(cases)).not.toEqual([])
    expect([openCount, closeCount]).toEqual([cases.length, cases.length])
  })

  it('names no two cases alike', () => {
    const names = messageStoreContract({ open: () => ({ subject: new NaiveMessageStore() }) }).map((contractCase) => contractCase.name)
    expect(new Set(names).size).toBe(names.length)
  })
})
