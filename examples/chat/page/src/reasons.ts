const TEXTS: Readonly<Record<number, string>> = {
  2: 'your session has ended',
  3: 'you are not a member of this conversation',
  4: 'you have been blocked here',
  5: 'this conversation no longer exists',
  7: 'you were signed out',
  9: 'it was damaged on the way',
  11: 'you may not write here',
  13: 'only invited people may write here',
  15: 'the server had a problem',
  16: 'this conversation does not exist',
  18: 'the server did not confirm it in time',
  19: 'this conversation is closed',
  22: 'too many messages at once',
  24: 'this group has been dissolved',
  25: 'you have been muted',
}

/** Why a message was refused (SENDACK), in words for the sender. */
export function reasonText(reasonCode: number): string {
  return TEXTS[reasonCode] ?? `the server refused it (reason ${reasonCode})`
}
