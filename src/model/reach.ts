/**
 * How far a push goes. 'all': to the connections here, and to the nodes where else the receivers are. 'logged': every node does
 * this for its own connections, and this one sees to those who are connected nowhere. 'here': another one does that.
 */
export type Reach = 'all' | 'logged' | 'here'
